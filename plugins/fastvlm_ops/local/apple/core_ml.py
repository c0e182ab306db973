"""In place of ``coremltools.libcoremlpython``, by which coremltools calls Core ML on macOS."""

from __future__ import annotations

import json
import os
import signal
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fastvlm_ops.local.apple.packages import STAND_IN, BrokenPackageError, compile_package
from fastvlm_ops.local.apple.predicting import Clock, Predictor, plan
from fastvlm_ops.local.apple.script import FaultKind
from fastvlm_ops.local.apple.state import State

MAC = "this Mac"
_NEWEST_SPECIFICATION = 10


class _MLModelProxy:
    """A model that was loaded."""

    _loads = 0
    _session: int | None = None

    def __init__(
        self, path: str, unit: str, function: str, hints: Mapping[str, str], asset: object | None
    ) -> None:
        self._state = State.of_environment()
        compiled = Path(path)
        if compiled.suffix != ".mlmodelc":
            compiled = Path(_MLModelProxy.compileModel(path))
        self._compiled = compiled
        description = json.loads((compiled / STAND_IN).read_text())
        if self._state.fault(FaultKind.CRASH_ON_LOAD, MAC):
            os.kill(os.getpid(), signal.SIGABRT)
        if self._state.fault(FaultKind.LOAD, MAC):
            raise RuntimeError("Error: Failed to build the model execution plan.")
        if _MLModelProxy._session is None:
            _MLModelProxy._session = self._state.count("session-mac")
        self._clock = Clock(description, unit, self._state.script, MAC, _MLModelProxy._session)
        self._load_ns = self._clock.load_ns(cold=_MLModelProxy._loads == 0)
        _MLModelProxy._loads += 1
        self._predictor = Predictor(compiled, description, self._state.folder / "cache")
        self._predict_ns = 0

    def predict(self, inputs: dict[str, Any], state: object | None = None) -> dict[str, np.ndarray]:
        """Predict once."""
        if self._state.fault(FaultKind.CRASH_ON_PREDICT, MAC):
            os.kill(os.getpid(), signal.SIGABRT)
        if self._state.fault(FaultKind.PREDICT, MAC):
            raise RuntimeError("Error: Unable to compute the prediction using a neural network model.")
        if self._state.fault(FaultKind.HANG, MAC):
            signal.pause()
        outputs = self._predictor.predict({name: np.asarray(value) for name, value in inputs.items()})
        self._predict_ns = self._clock.predict_ns()
        return outputs

    def get_compiled_model_path(self) -> str:
        """Where the compiled model is."""
        return str(self._compiled)

    def get_load_duration_in_nano_seconds(self) -> int:
        """How long loading took."""
        return self._load_ns

    def get_last_predict_duration_in_nano_seconds(self) -> int:
        """How long the last prediction took."""
        return self._predict_ns

    @staticmethod
    def maximum_supported_specification_version() -> int:
        """The newest specification that is read."""
        return _NEWEST_SPECIFICATION

    @staticmethod
    def compileModel(path: str) -> str:
        """Compile a package, somewhere."""
        folder = Path(tempfile.mkdtemp(prefix="fastvlm-apple-", dir=State.of_environment().folder))
        try:
            compile_package(Path(path), folder / f"{Path(path).stem}.mlmodelc")
        except BrokenPackageError as error:
            raise RuntimeError(str(error)) from error
        return str(folder / f"{Path(path).stem}.mlmodelc")

    @staticmethod
    def get_model_structure(path: str) -> Any:
        """The structure of a compiled model, in coremltools' classes."""
        from coremltools.models import compute_plan as classes

        description = json.loads((Path(path) / STAND_IN).read_text())
        operations = [_operation(classes, one) for one in description["operations"]]
        block = classes.MLModelStructureProgramBlock([], operations, [])
        function = classes.MLModelStructureProgramFunction([], block)
        return classes.MLModelStructure(None, classes.MLModelStructureProgram({"main": function}), None)

    @staticmethod
    def get_compute_plan(path: str, unit: str) -> Any:
        """The plan for a compiled model, in coremltools' class."""
        from coremltools.models.compute_plan import MLComputePlan

        return MLComputePlan(_LocalPlan(Path(path), unit))

    @staticmethod
    def get_all_compute_devices() -> list[Any]:
        """What this Mac has."""
        return [_device(unit) for unit in ("cpu", "gpu", "ane")]

    get_available_compute_devices = get_all_compute_devices


class _MLModelAssetProxy:
    """A model in memory; there for its name."""


class _MLComputePlanProxy:
    """A plan."""


class _LocalPlan(_MLComputePlanProxy):
    def __init__(self, compiled: Path, unit: str) -> None:
        description = json.loads((compiled / STAND_IN).read_text())
        planned = plan(description, unit, State.of_environment().script)
        self._planned = {one["outputs"][0]: (place, cost) for one, place, cost in planned}
        self.model_structure = _MLModelProxy.get_model_structure(str(compiled))

    def get_compute_device_usage_for_mlprogram_operation(self, operation: Any) -> Any:
        """Where an operation is planned to run."""
        from coremltools.models.compute_plan import MLComputePlanDeviceUsage

        preferred = _device(self._planned[operation.outputs[0].name][0])
        return MLComputePlanDeviceUsage(preferred, [_device("cpu"), preferred])

    def get_estimated_cost_for_mlprogram_operation(self, operation: Any) -> Any:
        """What it costs."""
        from coremltools.models.compute_plan import MLComputePlanCost

        return MLComputePlanCost(self._planned[operation.outputs[0].name][1])


class _MLCPUComputeDeviceProxy:
    """The processor."""


class _MLGPUComputeDeviceProxy:
    """The graphics processor."""


class _MLNeuralEngineComputeDeviceProxy:
    """The Neural Engine."""

    total_core_count = 16


def _device(unit: str) -> Any:
    from coremltools.models import compute_device as devices

    if unit == "cpu":
        return devices.MLCPUComputeDevice(_MLCPUComputeDeviceProxy())
    if unit == "gpu":
        return devices.MLGPUComputeDevice(_MLGPUComputeDeviceProxy())
    return devices.MLNeuralEngineComputeDevice(_MLNeuralEngineComputeDeviceProxy())


def _operation(classes: Any, described: Mapping[str, Any]) -> Any:
    kind = classes.MLModelStructureProgramValueType()
    outputs = [classes.MLModelStructureProgramNamedValueType(name, kind) for name in described["outputs"]]
    name = f"{described['set']}.{described['kind']}"
    return classes.MLModelStructureProgramOperation({}, name, outputs, [], None)
