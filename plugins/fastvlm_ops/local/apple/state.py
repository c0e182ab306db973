"""The state of the stand-in: the script, what the devices hold, and how often faults came up. In a folder."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Sequence
from pathlib import Path

from fastvlm_ops.core.programs.proc import process_id
from fastvlm_ops.local.apple.script import AppleScript, Fault, FaultKind, ScriptedDevice

VARIABLE = "FASTVLM_OPS_APPLE_STATE"


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; one that nobody waited for does not."""
    found = process_id(pid) if pid else None
    return found is not None and found.alive


class State:
    """One folder.

    :param folder: of the state
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def of_environment(cls) -> State:
        """The one that the environment names."""
        return cls(Path(os.environ[VARIABLE]))

    @property
    def script(self) -> AppleScript:
        """What is played."""
        return AppleScript.from_dict(json.loads((self.folder / "script.json").read_text()))

    @script.setter
    def script(self, script: AppleScript) -> None:
        temporary = self.folder / f"script.{os.getpid()}.tmp"
        temporary.write_text(json.dumps(script.as_dict()))
        temporary.replace(self.folder / "script.json")

    def device(self, name: str) -> ScriptedDevice | None:
        """Return the device with an identifier, UDID or name, if it has not gone away."""
        named = (one for one in self.script.devices if name in (one.identifier, one.udid, one.name))
        return next(named, None)

    def has_gone(self, device: ScriptedDevice) -> bool:
        """Tell whether a device went away by a fault."""
        return (self.home(device) / "gone").exists()

    def go(self, device: ScriptedDevice) -> None:
        """Let a device go away."""
        (self.home(device) / "gone").touch()

    def home(self, device: ScriptedDevice) -> Path:
        """Return the folder of what a device holds."""
        home = self.folder / "devices" / device.identifier
        home.mkdir(parents=True, exist_ok=True)
        return home

    def app(self, device: ScriptedDevice, bundle: str) -> Path:
        """Return the folder of an app on a device; there only where it is installed."""
        return self.home(device) / "apps" / bundle

    def container(self, device: ScriptedDevice, bundle: str) -> Path:
        """Return the container of an app."""
        return self.app(device, bundle) / "container"

    def note(self, program: str, arguments: Sequence[str]) -> None:
        """Write down that a program was run."""
        with (self.folder / "calls.jsonl").open("a") as file:
            file.write(json.dumps([program, *arguments]) + "\n")

    def count(self, name: str) -> int:
        """Count something up.

        :returns: how often it was counted before
        """
        folder = self.folder / "counts"
        folder.mkdir(exist_ok=True)
        with (folder / name).open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            before = int(file.read() or 0)
            file.truncate(0)
            file.write(str(before + 1))
        return before

    def fault(self, kind: FaultKind, device: str, model: str = "") -> Fault | None:
        """Return the fault that comes up now, if one does. Each call counts.

        :param kind: of it
        :param device: name of the device
        :param model: name of the package
        """
        for index, fault in enumerate(self.script.faults):
            fits = fault.device in (None, device) and model.startswith(fault.model)
            if fault.kind != kind or not fits:
                continue
            before = self.count(f"fault-{index}") - fault.after
            if before >= 0 and (fault.times is None or before < fault.times):
                return fault
        return None
