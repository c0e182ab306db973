"""A model of a package, ready to predict on Linux."""

from __future__ import annotations

import gc
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastvlm_ops.core.coreml.reference.features import Feature, from_tensor, to_tensor, zeros
from fastvlm_ops.core.coreml.reference.runtime import open_session
from fastvlm_ops.core.coreml.reference.translate import (
    WEIGHT_FILE,
    Precision,
    TranslatedOperation,
    translate,
)

_LARGE_BYTES = 1 << 26

Arrays = dict[str, NDArray[Any]]
State = dict[str, NDArray[Any]]


class ReferenceModel:
    """Runs an ML program through ONNX Runtime.

    :param package: the ``.mlpackage``
    :param precision: how results are held
    :param function: of the package; the default one where None
    :param threads: of ONNX Runtime; as it chooses where None
    :raises PackageRefusedError: the package is broken, or no ML program
    :raises UnsupportedOperationError: operations of it are not translated; all of them are named
    """

    def __init__(
        self,
        package: Path,
        precision: Precision = Precision.FP32,
        *,
        function: str | None = None,
        threads: int | None = None,
    ) -> None:
        started = time.perf_counter()
        # The weights stay mapped into memory when their file is gone.
        with TemporaryDirectory(prefix="coreml-reference-") as folder:
            translation = translate(package, Path(folder), precision=precision, function=function)
            if (Path(folder) / WEIGHT_FILE).stat().st_size > _LARGE_BYTES:
                gc.collect()  # coremltools' program refers to itself, and holds all weights
            self._session = open_session(translation.file, threads)
        self.load_ms = (time.perf_counter() - started) * 1000
        self.inputs: tuple[Feature, ...] = translation.inputs
        self.outputs: tuple[Feature, ...] = translation.outputs
        self.states: tuple[Feature, ...] = translation.states
        self.operations: tuple[TranslatedOperation, ...] = translation.operations

    def make_state(self) -> State:
        """A state as it is before the first prediction: all zeros."""
        return {state.name: zeros(state) for state in self.states}

    def feed(self, inputs: Mapping[str, NDArray[Any]], state: State | None = None) -> Arrays:
        """What the ONNX model is given, so that a prediction can be timed without it.

        :raises ValueError: an input is missing, not known, or has another shape
        """
        unknown = set(inputs) - {feature.name for feature in self.inputs}
        missing = {feature.name for feature in self.inputs} - set(inputs)
        if unknown or missing:
            names = ", ".join(feature.name for feature in self.inputs)
            raise ValueError(f"inputs {', '.join(sorted(inputs))} are given, expected {names}")
        fed = {one.tensor: to_tensor(one, np.asarray(inputs[one.name])) for one in self.inputs}
        held = state if state is not None else self.make_state()
        return {**fed, **{one.tensor: held[one.name] for one in self.states}}

    def run(self, fed: Arrays) -> list[NDArray[Any]]:
        """Predict from what :meth:`feed` gave; outputs and then states, as the ONNX model gives them."""
        found: list[NDArray[Any]] = self._session.run(None, fed)
        return found

    def predict(self, inputs: Mapping[str, NDArray[Any]], state: State | None = None) -> Arrays:
        """Predict.

        :param inputs: by name
        :param state: that is read, and then holds what was written; zeros that are forgotten where None
        :returns: outputs by name; floats are float32 whatever the program declares
        :raises ValueError: an input is missing, not known, or has another shape
        """
        found = self.run(self.feed(inputs, state))
        if state is not None:
            for feature, value in zip(self.states, found[len(self.outputs) :], strict=True):
                state[feature.name] = value
        return self.named(found)

    def named(self, found: list[NDArray[Any]]) -> Arrays:
        """Outputs by name, of what :meth:`run` gave."""
        outputs = zip(self.outputs, found[: len(self.outputs)], strict=True)
        return {feature.name: from_tensor(feature, value) for feature, value in outputs}
