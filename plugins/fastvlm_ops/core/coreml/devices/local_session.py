"""One session on this Mac, as a child: ``python -m …local_session REQUEST.json ANSWER.json``.

It measures by coremltools' MLModelBenchmarker and asks Core ML's compute plan.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from fastvlm_ops.core.coreml.arrays import write_arrays
from fastvlm_ops.core.coreml.devices.features import ModelFeatures, make_inputs, read_features
from fastvlm_ops.core.coreml.devices.interface import FailureCode, Placement
from fastvlm_ops.core.coreml.devices.trouble import DeviceTroubleError

_UNITS = {"MLCPUComputeDevice": "cpu", "MLGPUComputeDevice": "gpu", "MLNeuralEngineComputeDevice": "ane"}


def main(asked: Path, answered: Path) -> None:
    """Do what a request says.

    :param asked: file with the plan of the session
    :param answered: file that takes what was measured, or the failure
    """
    try:
        answer = asyncio.run(_session(json.loads(asked.read_bytes())))
    except DeviceTroubleError as error:
        answer = {"failure": error.failure.as_dict()}
    answered.write_text(json.dumps(answer))


async def _session(plan: dict[str, Any]) -> dict[str, Any]:
    package = Path(plan["package"])
    features = read_features(package)
    inputs = make_inputs(features, Path(plan["inputs"]) if plan["inputs"] else None)
    given = _as_core_ml_takes_them(features, inputs)
    benchmarker = _benchmarker(package, plan["compute_unit"])
    try:
        (cold,) = (await benchmarker.benchmark_load(iterations=1)).samples
        warm = []
        if plan["warm_loads"]:
            warm = (await benchmarker.benchmark_load(iterations=plan["warm_loads"])).samples
    except Exception as error:
        raise DeviceTroubleError(FailureCode.LOAD_FAILED, f"the model does not load: {error}") from error
    loaded = benchmarker._loaded_model
    try:
        count = plan["warm_up"] + plan["iterations"]
        measured = await benchmarker.benchmark_predict(inputs=given, iterations=count)
        if plan["outputs"]:
            outputs = await loaded.predict(given, state=loaded.make_state_if_needed())
            write_arrays(Path(plan["outputs"]), outputs)
    except Exception as error:
        raise DeviceTroubleError(FailureCode.PREDICTION_FAILED, f"prediction fails: {error}") from error
    placement = await _placement(loaded, features.kinds) if plan["want_placement"] else []
    return {
        "load_cold_ms": cold,
        "load_warm_ms": warm,
        "samples_ms": measured.samples[plan["warm_up"] :],
        "peak_memory_bytes": _peak_memory_bytes(),
        "placement": [asdict(one) for one in placement],
    }


def _benchmarker(package: Path, unit: str) -> Any:
    try:
        import coremltools
        from coremltools.models.ml_program.experimental.perf_utils import MLModelBenchmarker
    except ImportError as error:
        detail = f"coremltools cannot be imported: {error}; install fastvlm-ops[coreml] on the worker"
        raise DeviceTroubleError(FailureCode.NO_TOOLCHAIN, detail) from error
    model = coremltools.models.MLModel(
        str(package), compute_units=coremltools.ComputeUnit[unit], skip_model_load=True
    )
    return MLModelBenchmarker(model)


def _as_core_ml_takes_them(features: ModelFeatures, inputs: dict[str, np.ndarray]) -> dict[str, Any]:
    """Make pictures of those inputs that are images."""
    images = [one.name for one in features.inputs if one.is_image]
    if not images:
        return dict(inputs)
    try:
        from PIL import Image
    except ImportError as error:
        detail = f"{', '.join(images)}: images need Pillow; install it on the worker"
        raise DeviceTroubleError(FailureCode.UNSUPPORTED_MODEL, detail) from error
    return {
        name: Image.fromarray(_pixels(array)) if name in images else array for name, array in inputs.items()
    }


def _pixels(array: np.ndarray) -> np.ndarray:
    """Return rows, columns and colours, whichever way round an array has them."""
    squeezed = array[0] if array.ndim == 4 else array
    if squeezed.ndim == 3 and squeezed.shape[0] in (1, 3):
        squeezed = np.moveaxis(squeezed, 0, -1)
    if squeezed.ndim == 3 and squeezed.shape[-1] == 1:
        squeezed = squeezed[..., 0]
    return squeezed.astype(np.uint8)


async def _placement(loaded: Any, kinds: dict[str, str]) -> list[Placement]:
    """Return where each operation is planned to run; coremltools' own list has one entry an output."""
    plan = await loaded.retrieve_compute_plan()
    found: list[Placement] = []
    for function in plan.model_structure.program.functions.values():
        _collect(plan, function.block, kinds, found)
    return found


def _collect(plan: Any, block: Any, kinds: dict[str, str], found: list[Placement]) -> None:
    for operation in block.operations:
        usage = plan.get_compute_device_usage_for_mlprogram_operation(operation)
        if usage is not None and operation.outputs:
            name = operation.outputs[0].name
            cost = plan.get_estimated_cost_for_mlprogram_operation(operation)
            unit = _UNITS.get(type(usage.preferred_compute_device).__name__)
            found.append(
                Placement(name, kinds.get(name, operation.operator_name), unit, cost.weight if cost else None)
            )
        for inner in operation.blocks:
            _collect(plan, inner, kinds, found)


def _peak_memory_bytes() -> int:
    """Return the largest resident set so far: of all of this process, coremltools and NumPy among it."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # bytes there, KiB elsewhere


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
