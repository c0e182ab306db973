"""``fastvlm-ops prove-device``: tries on a real device all that its backend relies on."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastvlm_ops import __version__
from fastvlm_ops.cli.errors import CommandError

if TYPE_CHECKING:
    from fastvlm_ops.core.coreml.devices.interface import DeviceBackend

THIS_MAC = "this-mac"
KINDS = ("iphone", "ipad", "mac", THIS_MAC)


@dataclass(frozen=True)
class Wanted:
    """Which device is tried.

    :param name: as in ``coreml.yaml``; empty where the rest says it
    :param kind: ``iphone``, ``ipad``, ``mac``, or ``this-mac`` for this very Mac
    :param udid: where several of a kind are connected
    :param team: development team that the runner app is signed by
    """

    name: str = ""
    kind: str = "iphone"
    udid: str = ""
    team: str = ""


def run(wanted: Wanted, report: Path | None, tell: Callable[[str], None]) -> int:
    """Try a device and say what came of it.

    :param wanted: which
    :param report: file that takes everything, as JSON
    :param tell: takes one line
    :returns: 0 when all is as it has to be, else 1
    :raises CommandError: there is no such device in ``coreml.yaml``, or its connection cannot be used
    """
    from fastvlm_ops.core.coreml.devices.proving import prove

    backend = _declared(wanted.name) if wanted.name else _described(wanted)
    steps = []
    with tempfile.TemporaryDirectory(prefix="fastvlm-proof-") as scratch:
        for step in prove(backend, Path(scratch)):
            steps.append(step)
            tell(f"{'ok' if step.passed else 'FAILED':8}{step.name}: {step.said}")
    proved = all(step.passed for step in steps)
    tell("proved: the backend works on this device" if proved else "not proved; see what FAILED above")
    if report is not None:
        content: dict[str, Any] = {
            "fastvlm_ops": __version__,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "proved": proved,
            "steps": [step.as_dict() for step in steps],
        }
        report.write_text(json.dumps(content, indent=1) + "\n")
        tell(f"the report is in {report}")
    return 0 if proved else 1


def _described(wanted: Wanted) -> DeviceBackend:
    """Return the backend of a device that nothing has to be declared for."""
    from fastvlm_ops.core.config.coreml import DeviceDefinition
    from fastvlm_ops.core.coreml.devices.registry import make_backend, make_connected_backend

    if wanted.kind == THIS_MAC:
        return make_backend(DeviceDefinition(name=THIS_MAC, backend="local-mac"))
    connection = {"kind": wanted.kind, "identifier": wanted.udid, "team": wanted.team}
    return make_connected_backend(wanted.kind, connection)


def _declared(name: str) -> DeviceBackend:
    try:
        from fastvlm_ops import settings
        from fastvlm_ops.hooks.apple_device import AppleDeviceHook
    except ImportError:
        raise CommandError("Airflow is not installed here; say which device by --kind and --team") from None
    from fastvlm_ops.core.config import DefinitionError
    from fastvlm_ops.core.config.coreml import load_coreml
    from fastvlm_ops.core.coreml.devices.registry import make_backend
    from fastvlm_ops.hooks.connections import ConnectionSettingError

    try:
        definitions = load_coreml(settings.include_dir())
        device = definitions.device(name)
        if device.connection is None:
            return make_backend(device, conditions=definitions.conditions)
        return AppleDeviceHook(device.connection).backend(device, definitions.conditions)
    except (DefinitionError, ConnectionSettingError, settings.SettingError) as error:
        raise CommandError(str(error)) from error
