"""Starts and stops the demo service: a supervisor with all that it starts, and the places they work on."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fastvlm_ops.core.disaster_recovery.postgresql.server_processes import kill_server
from fastvlm_ops.core.programs.proc import ProcessId, marked, process_id
from fastvlm_ops.core.services.control import ServiceControlError
from fastvlm_ops.core.services.instances import Marker, ServiceView
from fastvlm_ops.core.services.places import write_place_marker
from fastvlm_ops.core.services.process_control import ProcessControl
from fastvlm_ops.local.processes import Process, Processes, ProcessStartError, tail
from fastvlm_ops.local.service.configuration import write_configuration
from fastvlm_ops.local.service.database_addresses import NAMES as DATABASES
from fastvlm_ops.local.service.layout import SERVICE_MARKER, SERVICE_NAME, Layout, SupervisorSettings
from fastvlm_ops.local.service.remembering import recall

if TYPE_CHECKING:
    from types import TracebackType

_PASSWORD_VARIABLE = "FASTVLM_OPS_DEMO_PASSWORD"  # noqa: S105 - a name
_STOP_SECONDS = 20.0


class DemoService:
    """The demo service on this machine. Only its own user can control it.

    :param folder: for all that it keeps; made where absent
    :param processes: that its processes belong to; its own, in ``folder``, unless given
    :param environment: that it says it is in
    :param object_store_url: what the link ``object_store`` leads to; None: there is no such link
    :param die_with_parent: whether it ends with this process, as tests want it
    :param database_mode: ``sync``: a commit waits for the standby
    :param restart_delay_seconds: before what died is started again
    """

    def __init__(
        self,
        folder: Path,
        processes: Processes | None = None,
        environment: str = "demo",
        object_store_url: str | None = None,
        die_with_parent: bool = False,
        *,
        database_mode: Literal["async", "sync"] = "async",
        restart_delay_seconds: float = 1.0,
    ) -> None:
        self.folder = folder.resolve()
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.layout = Layout(self.folder)
        self.processes = processes or Processes(self.folder)
        self.marker = Marker(service=SERVICE_NAME, environment=environment)
        self.database_user = "fastvlm"
        self.database_name = "service"
        self.database_password = secrets.token_urlsafe(24)
        me = process_id(os.getpid())
        self._settings = SupervisorSettings(
            folder=str(self.folder),
            state_folder=str(self.processes.folder),
            environment=environment,
            database_mode=database_mode,
            object_store_url=object_store_url,
            restart_delay_seconds=restart_delay_seconds,
            owner=asdict(me) if die_with_parent and me else None,
        )
        self._supervisor: Process | None = None

    def __enter__(self) -> DemoService:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def control_address(self) -> str:
        """Address of its control, for :func:`fastvlm_ops.core.services.connecting.connect_control`."""
        return f"unix:{self.layout.control}"

    @property
    def control(self) -> ProcessControl:
        """Its control."""
        return ProcessControl(self.control_address)

    @property
    def places(self) -> dict[str, Path]:
        """Its files that drills may touch, by name."""
        return self.layout.places

    @property
    def url(self) -> str:
        """Where its users reach it.

        :raises ServiceControlError: it does not answer
        """
        return self.control.view().url

    @property
    def supervisor(self) -> ProcessId | None:
        """The supervisor's process; None while it does not run."""
        return self._supervisor.id if self._supervisor and self._supervisor.id.alive else None

    @property
    def databases_folder(self) -> Path | None:
        """Where the data of its databases is: outside its folder, where their account cannot reach that; None
        while it has none.
        """
        left = recall(self.layout.state_file)
        return left.databases if left else None

    def start(self, *, timeout_seconds: float = 300) -> None:
        """Make its places where they are absent, start it, and wait until every part of it is healthy.

        Where its supervisor died, another one takes over what still runs.

        :raises ProcessStartError: a part of it ended, or it was not ready in time
        """
        if self._supervisor is None:
            self._end_left()  # of an earlier object, whose password nobody knows
        for attempts_left in (2, 1, 0):
            try:
                return self._start(time.monotonic() + timeout_seconds)
            except ProcessStartError:
                # Another program can take a port between our picking it and a part's using it.
                self.stop()
                if not attempts_left:
                    raise

    def stop(self) -> None:
        """Stop it with all its parts, whatever became of them, and remove its databases."""
        if self.supervisor is not None:
            self.supervisor.signal(signal.SIGTERM)
            self.supervisor.signal(signal.SIGCONT)
            deadline = time.monotonic() + _STOP_SECONDS
            while self.supervisor is not None and time.monotonic() < deadline:
                self.processes.reap()
                time.sleep(0.05)
            if (hangs := self.supervisor) is not None:
                hangs.signal(signal.SIGKILL)
        self._end_left()

    def wait_until_healthy(self, *, timeout_seconds: float = 60) -> ServiceView:
        """Wait until every part says that it is healthy.

        :raises ProcessStartError: one does not, in time, or the supervisor has ended
        """
        deadline = time.monotonic() + timeout_seconds
        while True:
            said = "it does not answer"
            try:
                view = self.control.view()
            except ServiceControlError as error:
                said = str(error)
            else:
                ill = [one for one in view.instances if one.healthy is not True]
                if not ill:
                    return view
                said = "; ".join(f"{one.name}: {one.detail or 'unknown'}" for one in ill)
            if self.supervisor is None or time.monotonic() > deadline:
                log = self.layout.logs / "supervisor.log"
                raise ProcessStartError(
                    f"the demo service is not healthy: {said}; the end of {log}:\n{tail(log)}"
                )
            time.sleep(0.1)

    def _start(self, deadline: float) -> None:
        building = self._make_places()
        settings = self.folder / "supervisor.json"
        settings.write_text(json.dumps(self._settings.as_dict(), indent=1))
        if self.supervisor is None:
            secret = {_PASSWORD_VARIABLE: self.database_password, SERVICE_MARKER: str(self.folder)}
            self._supervisor = self._run("supervisor", [str(settings)], secret)
        if building is not None and self.processes.wait(building) != 0:
            raise ProcessStartError(
                f"the model could not be built; the end of {building.log}:\n{tail(building.log)}"
            )
        self.wait_until_healthy(timeout_seconds=deadline - time.monotonic())
        if (databases := self.databases_folder) is not None:
            self.processes.note_outside(databases)

    def _make_places(self) -> Process | None:
        """Make what is absent; returns what builds the model store, beside all else."""
        for name, place in self.places.items():
            if place.exists():
                continue
            place.mkdir(parents=True)
            write_place_marker(place, self.marker)
            if name == "configuration":
                write_configuration(place)
        store = self.places["model_store"]
        if (store / "manifest.json").exists():
            return None
        return self._run("model_package", [str(store)], {})

    def _run(self, module: str, arguments: list[str], additions: dict[str, str]) -> Process:
        return self.processes.start(
            f"demo service: {module}",
            [sys.executable, "-m", f"fastvlm_ops.local.service.{module}", *arguments],
            environment={**os.environ, **additions},
            log=self.layout.logs / f"{module}.log",
        )

    def _end_left(self) -> None:
        """Kill what is left of the service, and remove the data of its databases."""
        self._kill_marked()
        if (databases := self.databases_folder) is not None:
            for name in DATABASES:
                kill_server(databases / name)
            shutil.rmtree(databases, ignore_errors=True)
        self.layout.state_file.unlink(missing_ok=True)
        self.processes.reap()

    def _kill_marked(self) -> None:
        deadline = time.monotonic() + _STOP_SECONDS
        while left := list(marked(SERVICE_MARKER, str(self.folder))):
            if time.monotonic() > deadline:
                numbers = ", ".join(str(one.pid) for one in left)
                raise ProcessStartError(f"processes of the demo service cannot be stopped: {numbers}")
            for process in left:
                process.signal(signal.SIGKILL)
            self.processes.reap()
            time.sleep(0.05)
