"""Makes golden outputs of an original: the package that shipped ones were compressed from."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import numpy as np

from fastvlm_ops.core.coreml.arrays import Arrays
from fastvlm_ops.core.coreml.errors import GoldenError
from fastvlm_ops.core.coreml.golden import Golden, write_golden
from fastvlm_ops.core.coreml.packages import digest
from fastvlm_ops.core.coreml.reference.features import example
from fastvlm_ops.core.coreml.reference.model import ReferenceModel

_SEED = 1


def make_golden(original: Path, folder: Path, *, model: str, inputs: Arrays | None = None) -> Golden:
    """Let the Linux reference compute golden outputs, in single precision.

    :param original: package of the original, best in fp32 and uncompressed
    :param folder: that takes them; what is there is replaced
    :param model: that they are of, as in ``coreml.yaml``
    :param inputs: by name; made up where None, the same ones every time
    :raises PackageRefusedError: the package is broken, or no ML program
    :raises UnsupportedOperationError: the reference cannot run it
    :raises GoldenError: the inputs do not fit, or an output is not finite
    """
    reference = ReferenceModel(original)
    chance = np.random.default_rng(_SEED)
    given = inputs if inputs is not None else {one.name: example(one, chance) for one in reference.inputs}
    try:
        outputs = reference.predict(given)
    except ValueError as error:
        raise GoldenError(f"{original}: {error}") from error
    made_by = f"linux-reference fp32, onnxruntime {metadata.version('onnxruntime')}"
    return write_golden(folder, given, outputs, model=model, made_by=made_by, digest=digest(original))
