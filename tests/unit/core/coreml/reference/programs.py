"""ML programs made in tests, and cases of operations with what NumPy makes of the same inputs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from fastvlm_ops.core.coreml.reference import Precision, ReferenceModel

Arrays = Mapping[str, np.ndarray]
CHANCE = np.random.default_rng(6)


def normal(*shape: int) -> np.ndarray:
    """Normally distributed float32."""
    return CHANCE.standard_normal(shape).astype(np.float32)


def uniform(low: float, high: float, *shape: int) -> np.ndarray:
    """Evenly distributed float32."""
    return CHANCE.uniform(low, high, shape).astype(np.float32)


def whole(low: int, high: int, *shape: int) -> np.ndarray:
    """Whole numbers from low to below high."""
    return CHANCE.integers(low, high, shape).astype(np.int32)


@dataclass(frozen=True)
class Case:
    """An operation in one form.

    :param operation: as MIL names it
    :param build: makes its output, or outputs, of coremltools' builder and the inputs' variables
    :param expect: what NumPy makes of the inputs
    :param inputs: by name
    :param form: what tells it from other cases of the operation
    :param target: opset
    :param within: largest difference
    """

    operation: str
    build: Callable[..., Any]
    expect: Callable[..., Any]
    inputs: dict[str, np.ndarray] = field(default_factory=dict)
    form: str = ""
    target: str = "iOS17"
    within: float = 1e-5

    @property
    def name(self) -> str:
        """For a test's id."""
        return f"{self.operation}-{self.form}" if self.form else self.operation


def build(
    folder: Path,
    inputs: Arrays,
    body: Callable[..., Any],
    *,
    target: str = "iOS17",
    shapes: Mapping[str, Sequence[Any]] | None = None,
    states: Mapping[str, tuple[int, ...]] | None = None,
    takes: Sequence[Any] | None = None,
    name: str = "model",
) -> Path:
    """Write a package of a program.

    :param body: makes its output, or outputs, of coremltools' builder and the inputs' variables
    :param shapes: of inputs whose shape is not fixed, with symbols
    :param takes: what coremltools is told of the inputs, of whose shape is not fixed
    :param states: of half precision, by name; their variables come after the inputs'
    """
    logging.getLogger("coremltools").setLevel(logging.ERROR)
    import coremltools
    from coremltools.converters.mil import Builder
    from coremltools.converters.mil.mil import types

    kinds = {"float32": types.fp32, "float16": types.fp16, "int32": types.int32}
    specs = [
        Builder.TensorSpec(shape=(shapes or {}).get(key, value.shape), dtype=kinds[value.dtype.name])
        for key, value in inputs.items()
    ]
    specs += [Builder.StateTensorSpec(shape, dtype=types.fp16) for shape in (states or {}).values()]
    names = [*inputs, *(states or {})]
    function = _Function(names, partial(body, Builder))
    version = getattr(coremltools.target, target)
    program = Builder.program(input_specs=specs, opset_version=version)(function)
    model = coremltools.convert(
        program,
        convert_to="mlprogram",
        inputs=takes,
        compute_precision=coremltools.precision.FLOAT32,
        minimum_deployment_target=version,
        pass_pipeline=coremltools.PassPipeline.EMPTY,
        skip_model_load=True,
    )
    package = folder / f"{name}.mlpackage"
    model.save(str(package))
    return package


class _Function:
    """A function whose arguments have given names: the builder reads them, and names inputs so."""

    def __init__(self, names: Sequence[str], body: Callable[..., Any]) -> None:
        self.__name__ = "body"
        self.__code__ = SimpleNamespace(co_argcount=len(names), co_varnames=tuple(names))
        self._body = body

    def __call__(self, *values: Any) -> Any:
        return self._body(*values)


def predict(
    folder: Path,
    inputs: Arrays,
    body: Callable[..., Any],
    *,
    target: str = "iOS17",
    precision: Precision = Precision.FP32,
) -> list[np.ndarray]:
    """Write a package, and what the reference makes of the inputs."""
    model = ReferenceModel(build(folder, inputs, body, target=target), precision, threads=1)
    return list(model.predict(inputs).values())
