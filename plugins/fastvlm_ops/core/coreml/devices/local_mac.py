"""The worker itself, a Mac: coremltools' benchmarker and Core ML's compute plan, a process a session."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastvlm_ops.core.coreml.devices.building import child_environment, coremltools_version
from fastvlm_ops.core.coreml.devices.checks import hashed_identifier
from fastvlm_ops.core.coreml.devices.interface import (
    BackendKind,
    Conditions,
    Device,
    Failure,
    FailureCode,
    HardwareClass,
    Placement,
    SessionPlan,
    SessionResult,
)
from fastvlm_ops.core.coreml.devices.mac_conditions import read_conditions, thermal_state, unfit
from fastvlm_ops.core.coreml.devices.trouble import DeviceTroubleError, trouble
from fastvlm_ops.core.coreml.devices.versions import tool_says, xcode_version
from fastvlm_ops.core.programs import ProgramError, ProgramTimeoutError, run

if TYPE_CHECKING:
    from fastvlm_ops.core.config.coreml import ConditionRules


class LocalMacBackend:
    """This Mac.

    :param name: as in ``coreml.yaml``
    :param conditions: that it has to be in to be measured; any where None
    :param environment: of all programs; this process's where None
    """

    kind = BackendKind.LOCAL_MAC

    def __init__(
        self,
        name: str,
        *,
        conditions: ConditionRules | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self._rules = conditions
        self._given_environment = environment

    @property
    def _environment(self) -> dict[str, str]:
        return dict(os.environ if self._given_environment is None else self._given_environment)

    @cached_property
    def toolchain(self) -> dict[str, str]:
        """Versions of what loads and runs the model."""
        return {
            "coremltools": coremltools_version(),
            "xcode": xcode_version(self._environment),
            "backend": f"{self.kind}/1",
        }

    def discover(self) -> Device | Failure:
        """Describe this Mac."""
        version = tool_says(["sw_vers", "-productVersion"], self._environment)
        if not version:
            return Failure(FailureCode.NO_TOOLCHAIN, "this worker is no Mac: local-mac needs macOS")
        if not coremltools_version():
            detail = "coremltools is not installed; install fastvlm-ops[coreml] on the worker"
            return Failure(FailureCode.NO_TOOLCHAIN, detail)
        return Device(
            name=self.name,
            hardware_class=HardwareClass.MAC,
            model=tool_says(["sysctl", "-n", "hw.model"], self._environment),
            os_version=version,
            os_build=tool_says(["sw_vers", "-buildVersion"], self._environment),
            identifier_hash=self._identity(),
        )

    def preflight(self, device: Device) -> Failure | None:
        """Tell why this Mac is not fit to be measured now."""
        if self._rules is None:
            return None
        why = unfit(read_conditions(self._environment), self._rules)
        return Failure(FailureCode.NOT_READY, why) if why else None

    def run_session(self, device: Device, plan: SessionPlan, scratch: Path) -> SessionResult:
        """Load and predict in a process of its own."""
        started = datetime.now(UTC).isoformat()
        conditions = read_conditions(self._environment)
        try:
            result = self._session(plan, scratch)
        except DeviceTroubleError as error:
            result = SessionResult(index=0, failure=error.failure)
        except (OSError, ValueError) as error:
            detail = f"a file of the session cannot be written or read: {error}"
            result = SessionResult(index=0, failure=Failure(FailureCode.INTERNAL, detail))
        ended: Conditions = replace(conditions, thermal_end=thermal_state(self._environment))
        return replace(result, started_at=started, conditions=ended)

    def clean_up(self, device: Device) -> None:
        """Do nothing: a session's process has ended, with all that it wrote."""

    def _identity(self) -> str:
        """Return a hash of what no other Mac has; empty where that is not told."""
        said = tool_says(["ioreg", "-rd1", "-c", "IOPlatformExpertDevice"], self._environment)
        found = re.search(r'"IOPlatformUUID" = "([0-9A-Fa-f-]+)"', said)
        return hashed_identifier(found[1]) if found else ""

    def _session(self, plan: SessionPlan, scratch: Path) -> SessionResult:
        asked, answered = scratch / "request.json", scratch / "answer.json"
        outputs = scratch / "outputs.npz"
        asked.write_text(json.dumps(_request(plan, outputs)))
        temporary = scratch / "tmp"  # coremltools leaves its packages behind when it is killed
        temporary.mkdir()
        environment = {**child_environment(self._environment), "TMPDIR": str(temporary)}
        try:
            run(
                [sys.executable, "-m", f"{__package__}.local_session", str(asked), str(answered)],
                name="the session",
                environment=environment,
                timeout_seconds=plan.timeout_seconds,
                folder=scratch,
            )
        except ProgramTimeoutError as error:
            raise DeviceTroubleError(FailureCode.TIMED_OUT, str(error)) from error
        except ProgramError as error:
            crashed = "killed by signal" in str(error)
            code = FailureCode.APP_CRASHED if crashed else FailureCode.INTERNAL
            raise DeviceTroubleError(code, f"{error}: {error.tail()[-600:]}") from error
        return _result(json.loads(answered.read_bytes()), outputs)


def _request(plan: SessionPlan, outputs: Path) -> dict[str, Any]:
    return {
        "package": str(plan.package.resolve()),
        "compute_unit": str(plan.compute_unit),
        "inputs": str(plan.inputs.resolve()) if plan.inputs else None,
        "warm_up": plan.warm_up,
        "iterations": plan.iterations,
        "warm_loads": plan.warm_loads,
        "outputs": str(outputs) if plan.want_outputs else None,
        "want_placement": plan.want_placement,
    }


def _result(answer: Mapping[str, Any], outputs: Path) -> SessionResult:
    if failure := answer.get("failure"):
        raise trouble(FailureCode(failure["code"]), failure["detail"])
    return SessionResult(
        index=0,
        load_cold_ms=answer["load_cold_ms"],
        load_warm_ms=tuple(answer["load_warm_ms"]),
        samples_ms=tuple(answer["samples_ms"]),
        peak_memory_bytes=answer["peak_memory_bytes"],
        placement=tuple(Placement(**one) for one in answer["placement"]),
        outputs=outputs if outputs.is_file() else None,
    )
