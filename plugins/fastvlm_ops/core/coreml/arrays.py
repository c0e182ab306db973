"""Arrays by name in a file, ``.npz``, that may come from a device or from anybody."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastvlm_ops.core.coreml.errors import CoreMLError

_BYTES = 1 << 31

Arrays = Mapping[str, NDArray[Any]]


class ArraysError(CoreMLError):
    """A file of arrays is damaged, hostile, or too large."""


def write_arrays(path: Path, arrays: Arrays) -> None:
    """Write arrays by name, as ``.npz``; the same arrays give the same bytes.

    :param path: of the file, replaced at once when all is written
    :param arrays: by name
    """
    temporary = path.with_name(f".{path.name}")
    # Not np.savez: to it an array named `file` would be its own argument.
    with zipfile.ZipFile(temporary, "w") as archive:
        for name, values in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asanyarray(values), allow_pickle=False)
    temporary.replace(path)


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays of an ``.npz`` by name. It may come from anywhere: nothing in it is executed.

    :param path: of the file
    :raises ArraysError: it cannot be read, has objects, or is larger than outputs are
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            size = sum(entry.file_size for entry in entries)
            if size > _BYTES:
                raise ArraysError(f"{path}: has {size} bytes of arrays, more than {_BYTES}")
            return {entry.filename.removesuffix(".npy"): _read_array(archive, entry) for entry in entries}
    # The last one is what zipfile raises for a compression that it does not know.
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise ArraysError(f"{path}: is no file of arrays: {error}") from error


def _read_array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> NDArray[Any]:
    with archive.open(entry) as file:
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        version = np.lib.format.read_magic(file)
        if version not in read:
            raise ValueError(f"{entry.filename} is of the unknown version {version}")
        shape, fortran, kind = read[version](file)
        if kind.hasobject:
            raise ValueError(f"{entry.filename} has objects")
        # Before anything is made of that size: NumPy would ask for whatever the header says.
        if math.prod(shape) * kind.itemsize != entry.file_size - file.tell():
            raise ValueError(f"{entry.filename} has not the bytes of an array of the shape {shape}")
        return np.ndarray(shape, kind, bytearray(file.read()), order="F" if fortran else "C")
