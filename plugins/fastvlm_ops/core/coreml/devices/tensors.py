"""Arrays as the ModelRunner protocol sends them: descriptors in JSON, and the bytes in one file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

# The runner knows no others.
DATA_TYPES = {"Float16": np.float16, "Float32": np.float32, "Float64": np.float64, "Int32": np.int32}


class TensorError(ValueError):
    """A descriptor and its bytes do not fit, or an array is of a type that cannot be sent."""


def write_tensors(arrays: Mapping[str, np.ndarray], file: Path) -> dict[str, Any]:
    """Write arrays behind each other.

    :param arrays: by name
    :param file: that is written
    :returns: a descriptor by name
    :raises TensorError: an array is of a type that cannot be sent
    """
    names = {np.dtype(kind): name for name, kind in DATA_TYPES.items()}
    descriptors = {}
    with file.open("wb") as output:
        for name, array in arrays.items():
            if array.dtype not in names:
                raise TensorError(f"{name} is of {array.dtype}; {', '.join(DATA_TYPES)} can be sent")
            ordered = np.asarray(array, order="C")
            storage = {"offset": output.tell(), "size": ordered.nbytes}
            descriptors[name] = {
                "dataType": names[array.dtype],
                "shape": list(array.shape),
                "strides": [stride // ordered.itemsize for stride in ordered.strides],
                "storage": storage,
            }
            output.write(ordered.tobytes())
    return descriptors


def read_tensors(descriptors: Mapping[str, Any], file: Path) -> dict[str, np.ndarray]:
    """Read arrays that a device sent. What it says is checked against the bytes that came.

    :param descriptors: by name
    :param file: with the bytes
    :raises TensorError: they do not fit
    """
    data = file.read_bytes()
    return {name: _array(name, descriptor, data) for name, descriptor in descriptors.items()}


def _array(name: str, descriptor: Mapping[str, Any], data: bytes) -> np.ndarray:
    try:
        kind = np.dtype(DATA_TYPES[descriptor["dataType"]])
        shape = tuple(int(size) for size in descriptor["shape"])
        strides = tuple(int(stride) for stride in descriptor["strides"])
        offset = int(descriptor["storage"]["offset"])
    except (KeyError, TypeError, ValueError) as error:
        raise TensorError(f"the descriptor of {name} cannot be read") from error
    # The runner's own size counts from the start of the file, so that the bytes' end is what bounds it.
    reach = sum((size - 1) * stride for size, stride in zip(shape, strides, strict=False)) + 1
    bad = len(shape) != len(strides) or min((*shape, 1)) < 1 or min((*strides, offset)) < 0
    whole = max(reach, math.prod(shape))  # strides that overlap could make much of few bytes
    if bad or offset + whole * kind.itemsize > len(data):
        raise TensorError(f"the descriptor of {name} does not fit the {len(data)} bytes that came")
    flat = np.frombuffer(data, kind, count=reach, offset=offset)
    view = np.lib.stride_tricks.as_strided(flat, shape, [stride * kind.itemsize for stride in strides])
    return np.array(view)
