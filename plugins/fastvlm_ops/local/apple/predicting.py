"""What Core ML would do, for the stand-in: predict, place operations, take time."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fastvlm_ops.core.coreml.arrays import read_arrays, write_arrays
from fastvlm_ops.core.coreml.devices.tensors import DATA_TYPES
from fastvlm_ops.local.apple.packages import PACKAGE
from fastvlm_ops.local.apple.script import AppleScript

_WORK_PER_MS = 2e6  # of the Neural Engine; a CPU does a quarter of it
_HOP = 256  # of an element of the output, to the CPU and back
_SLOWER = {"ane": 1.0, "gpu": 2.0, "cpu": 4.0}


def preferred_unit(operation: Mapping[str, Any], unit: str, script: AppleScript) -> str:
    """Return where an operation is planned to run.

    :param operation: as described
    :param unit: that is allowed, as in ``CPU_AND_NE``
    :param script: what is played
    """
    if unit == "CPU_ONLY" or operation["kind"] in script.cpu_kinds:
        return "cpu"
    if set(operation["outputs"]) & set(script.cpu_operations):
        return "cpu"
    return "gpu" if unit == "CPU_AND_GPU" else "ane"


def plan(
    description: Mapping[str, Any], unit: str, script: AppleScript
) -> list[tuple[dict[str, Any], str, float]]:
    """Return the operations, where each is planned to run, and its share of the cost.

    An operation that runs on the CPU while others do not costs the way there and back too.

    :param description: of the model
    :param unit: that is allowed
    :param script: what is played
    """
    operations = description["operations"]
    places = [preferred_unit(one, unit, script) for one in operations]
    costs = [
        one["work"] * _SLOWER[place]
        + (one["elements"] * _HOP if place == "cpu" and unit != "CPU_ONLY" else 0)
        for one, place in zip(operations, places, strict=True)
    ]
    total = sum(costs) or 1.0
    return [(one, place, cost / total) for one, place, cost in zip(operations, places, costs, strict=True)]


class Clock:
    """How long the predictions of one session take.

    :param description: of the model
    :param unit: that is allowed
    :param script: what is played
    :param device: name of the device
    :param session: number of the session: each has luck of its own
    """

    def __init__(
        self, description: Mapping[str, Any], unit: str, script: AppleScript, device: str, session: int
    ) -> None:
        self.timing = script.timing(description["name"], device)
        key = f"{script.seed} {device} {description['name']} {session}"
        self._random = random.Random(key)  # noqa: S311  # of a script, not of a secret
        works = [one["work"] * _SLOWER[place] for one, place, _ in plan(description, unit, script)]
        worked_out = sum(works) / _WORK_PER_MS
        median = self.timing.median_ms if self.timing.median_ms is not None else worked_out
        self._session_ms = median * self._factor(self.timing.session_noise)
        self._drawn = 0

    def _factor(self, share: float) -> float:
        return float(max(self._random.gauss(1.0, share), 0.1)) if share else 1.0

    def predict_ns(self) -> int:
        """Return how long the next prediction takes."""
        given = self.timing.samples_ms
        milliseconds = (
            given[self._drawn % len(given)] if given else self._session_ms * self._factor(self.timing.noise)
        )
        self._drawn += 1
        return round(milliseconds * 1e6)

    def load_ns(self, *, cold: bool) -> int:
        """Return how long a load takes."""
        milliseconds = self.timing.load_cold_ms if cold else self.timing.load_warm_ms
        return round(milliseconds * 1e6 * self._factor(self.timing.session_noise))


class Predictor:
    """Predicts from one compiled model. What was worked out once is kept, for all sessions.

    :param compiled: folder of the ``.mlmodelc``
    :param description: of the model
    :param cache: folder of what was worked out
    """

    def __init__(self, compiled: Path, description: Mapping[str, Any], cache: Path) -> None:
        self._package = compiled / PACKAGE
        self._description = description
        self._cache = cache
        self._digest = _digest(self._package)

    def predict(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the outputs for inputs."""
        key = hashlib.sha256(self._digest)
        for name in sorted(inputs):
            array = np.ascontiguousarray(inputs[name])
            key.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
        file = self._cache / f"{key.hexdigest()}.npz"
        if not file.exists():
            self._work_out(inputs, file)
        return read_arrays(file)

    def _work_out(self, inputs: Mapping[str, np.ndarray], file: Path) -> None:
        outputs = _by_reference(self._package, inputs)
        if outputs is None:
            outputs = _made_up(self._description, file.stem)
        self._cache.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(f"{file.stem}.{os.getpid()}.tmp.npz")
        write_arrays(temporary, outputs)
        temporary.replace(file)


def _by_reference(package: Path, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray] | None:
    try:
        from fastvlm_ops.core.coreml import reference
    except ImportError:
        return None
    model = reference.ReferenceModel(package, precision=reference.Precision.FP16_ROUNDED)
    outputs: dict[str, np.ndarray] = model.predict(inputs)
    return outputs


def _made_up(description: Mapping[str, Any], seed: str) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(int(seed[:16], 16))
    outputs = {}
    for one in description["outputs"]:
        shape = one["shape"] or [1]
        outputs[one["name"]] = generator.standard_normal(shape).astype(
            DATA_TYPES.get(one["type"], np.float32)
        )
    return outputs


def _digest(package: Path) -> bytes:
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*")):
        if path.is_file():
            digest.update(str(path.relative_to(package)).encode())
            with contextlib.closing(path.open("rb")) as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.digest()
