"""One session of the Linux reference, as a process of its own.

    python -m fastvlm_ops.core.coreml.reference.session '{"do": "session", "package": …, "report": …}'

What it found goes into the report, a JSON file; so does why it found nothing, where that can be told.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fastvlm_ops.core.coreml.arrays import read_arrays, write_arrays
from fastvlm_ops.core.coreml.devices.interface import FailureCode
from fastvlm_ops.core.coreml.errors import PackageRefusedError, UnsupportedOperationError
from fastvlm_ops.core.coreml.inspecting import inspect_package
from fastvlm_ops.core.coreml.reference.features import example
from fastvlm_ops.core.coreml.reference.model import Arrays, ReferenceModel
from fastvlm_ops.core.coreml.reference.runtime import load_runtime
from fastvlm_ops.core.coreml.reference.translate import Precision
from fastvlm_ops.core.coreml.specification import quiet_coremltools

_SEED = 20


def run_session(order: Mapping[str, Any]) -> dict[str, Any]:
    """Load, warm up, predict.

    Times are of single precision, whatever precision the outputs are wanted in: rounding takes as long as
    computing, and no device does it.

    :param order: ``package``, ``inputs`` (path or None), ``warm_up``, ``iterations``, ``warm_loads``,
        ``outputs`` (path or None), ``precision`` of them, ``threads``
    """
    package, threads = Path(order["package"]), order["threads"]
    model = _loaded(package, threads)
    cold = model.load_ms
    warm = [_loaded(package, threads).load_ms for _ in range(order["warm_loads"])]
    inputs = _inputs(model, order["inputs"])
    fed = model.feed(inputs)
    for _ in range(order["warm_up"]):
        model.run(fed)
    samples = [_milliseconds(lambda: model.run(fed)) for _ in range(order["iterations"])]
    memory = _peak_memory_bytes()
    if order["outputs"]:
        if order["precision"] != Precision.FP32:
            model = _loaded(package, threads, Precision(order["precision"]))
        write_arrays(Path(order["outputs"]), model.predict(inputs))
    return {
        "load_cold_ms": cold,
        "load_warm_ms": warm,
        "samples_ms": samples,
        "peak_memory_bytes": memory,
        "operations": _costs(package, model),
    }


def take_turns(order: Mapping[str, Any]) -> dict[str, Any]:
    """Time two models in turns, so that what else the machine does falls on both.

    :param order: ``packages`` (two), ``blocks``, ``iterations`` of each block, ``threads``
    :returns: the fastest prediction of each block, of either model
    """
    models = [_loaded(Path(package), order["threads"]) for package in order["packages"]]
    fed = [model.feed(_inputs(model, None)) for model in models]
    pairs = []
    for block in range(order["blocks"] + 1):
        best = [0.0, 0.0]
        for place in (0, 1) if block % 2 else (1, 0):
            best[place] = min(
                _milliseconds(lambda place=place: models[place].run(fed[place]))  # type: ignore[misc]
                for _ in range(order["iterations"])
            )
        pairs.append(best)
    return {"pairs": pairs[1:]}  # the first warms up


def _costs(package: Path, model: ReferenceModel) -> list[tuple[str, str, float | None]]:
    """Name and kind of each operation, and its share of the arithmetic; None where only a run tells it."""
    inspection = inspect_package(package)
    total = inspection.flops
    return [
        (one.name, one.kind, inspection.operation_flops.get(one.name, 0.0) / total if total else None)
        for one in model.operations
    ]


def _inputs(model: ReferenceModel, file: str | None) -> Arrays:
    if file is None:
        chance = np.random.default_rng(_SEED)
        return {feature.name: example(feature, chance) for feature in model.inputs}
    return read_arrays(Path(file))


def _milliseconds(act: Callable[[], Any]) -> float:
    started = time.perf_counter_ns()
    act()
    return (time.perf_counter_ns() - started) / 1e6


def _peak_memory_bytes() -> int | None:
    """The largest resident set so far; None where the kernel does not tell."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return None


def _run(order: Mapping[str, Any]) -> dict[str, Any]:
    # Before anything is timed: importing them takes seconds.
    quiet_coremltools()
    import coremltools.converters.mil.frontend.milproto.load  # noqa: F401
    import onnx  # noqa: F401

    load_runtime()
    try:
        return take_turns(order) if order["do"] == "turns" else run_session(order)
    except _LoadError as error:
        return _failure(FailureCode.LOAD_FAILED, error)
    except UnsupportedOperationError as error:
        return _failure(FailureCode.UNSUPPORTED_MODEL, error)
    except Exception as error:
        return _failure(FailureCode.PREDICTION_FAILED, error)


class _LoadError(Exception):
    """A model cannot be loaded, for whatever reason but that an operation is missing."""


def _loaded(package: Path, threads: int | None, precision: Precision = Precision.FP32) -> ReferenceModel:
    try:
        return ReferenceModel(package, precision, threads=threads)
    except UnsupportedOperationError:
        raise
    except PackageRefusedError as error:
        raise _LoadError(str(error)) from error
    except Exception as error:
        raise _LoadError(f"{type(error).__name__}: {error}") from error


def _failure(code: FailureCode, error: Exception) -> dict[str, Any]:
    plain = isinstance(error, _LoadError | UnsupportedOperationError)
    return {
        "failure": {"code": str(code), "detail": str(error) if plain else f"{type(error).__name__}: {error}"}
    }


def main(arguments: list[str]) -> int:
    """Carry out the order that stands in the one argument."""
    order = json.loads(arguments[0])
    Path(order["report"]).write_text(json.dumps(_run(order)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
