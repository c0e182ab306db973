"""Golden inputs and outputs of a model: what it is given, and what the original gave back.

They lie in a folder beside the packages: ``inputs.npz`` and ``outputs.npz``, with one array a name, and
``golden.json``, which has their SHA-256. It is written last, so that a folder with it is complete.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import stat
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastvlm_ops.core.coreml.errors import GoldenError

SCHEMA_VERSION = 1
DESCRIPTION = "golden.json"
INPUTS = "inputs.npz"
OUTPUTS = "outputs.npz"
_DESCRIPTION_BYTES = 1 << 16
_ARRAY_BYTES = 1 << 31

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Golden:
    """Golden inputs and outputs that are as they were written.

    :param inputs: path of the inputs
    :param outputs: path of the outputs
    :param id: of both together; results against different ones are not compared
    :param model: that they are of
    :param made_by: what computed the outputs
    :param made_from_digest: of the package that computed them
    :param created_at: ISO 8601, UTC
    """

    inputs: Path
    outputs: Path
    id: str
    model: str
    made_by: str
    made_from_digest: str
    created_at: str

    def read_inputs(self) -> dict[str, NDArray[Any]]:
        """Return the inputs by name.

        :raises GoldenError: they cannot be read
        """
        return read_arrays(self.inputs)

    def read_outputs(self) -> dict[str, NDArray[Any]]:
        """Return the outputs by name.

        :raises GoldenError: they cannot be read
        """
        return read_arrays(self.outputs)


def write_golden(
    folder: Path, inputs: Arrays, outputs: Arrays, *, model: str, made_by: str, digest: str
) -> Golden:
    """Write golden inputs and outputs; what is there is replaced.

    :param folder: that is made where absent
    :param inputs: by name
    :param outputs: by name, that the original gave for them
    :param model: that they are of
    :param made_by: what computed the outputs, as in ``linux-reference fp32``
    :param digest: of the package that computed them
    :raises GoldenError: there are none, or an output is not finite: nothing could be compared with it
    """
    if not inputs or not outputs:
        raise GoldenError(f"{folder}: needs at least one input and one output")
    for name, values in outputs.items():
        if not np.all(np.isfinite(values)):
            raise GoldenError(
                f"{folder}: output {name!r} has values that are not finite; no model can match it"
            )
    folder.mkdir(parents=True, exist_ok=True)
    # Without it the folder counts as none, so that old and new never stand together.
    (folder / DESCRIPTION).unlink(missing_ok=True)
    write_arrays(folder / INPUTS, inputs)
    write_arrays(folder / OUTPUTS, outputs)
    description = {
        "schema": SCHEMA_VERSION,
        "model": model,
        "made_by": made_by,
        "made_from_digest": digest,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "inputs_sha256": _sha256(folder / INPUTS),
        "outputs_sha256": _sha256(folder / OUTPUTS),
    }
    temporary = folder / f".{DESCRIPTION}"
    temporary.write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
    temporary.replace(folder / DESCRIPTION)
    return load_golden(folder)


def load_golden(folder: Path) -> Golden:
    """Return golden inputs and outputs, once their bytes are known to be those that were written.

    :param folder: that they are in
    :raises GoldenError: they are missing, incomplete, of another format, or changed
    """
    text = _read_small(folder / DESCRIPTION)
    try:
        description = json.loads(text)
        schema = description["schema"]
        texts = {key: description[key] for key in ("model", "made_by", "made_from_digest", "created_at")}
        sums = {INPUTS: description["inputs_sha256"], OUTPUTS: description["outputs_sha256"]}
    except (ValueError, RecursionError) as error:
        raise GoldenError(f"{folder / DESCRIPTION}: is not JSON: {error}") from error
    except (KeyError, TypeError) as error:
        raise GoldenError(f"{folder / DESCRIPTION}: lacks {error}") from error
    if schema != SCHEMA_VERSION:
        raise GoldenError(
            f"{folder / DESCRIPTION}: has schema {schema!r}; this version reads {SCHEMA_VERSION}"
        )
    if not all(isinstance(value, str) for value in (*texts.values(), *sums.values())):
        raise GoldenError(f"{folder / DESCRIPTION}: has something else than text for a value")
    for file, wanted in sums.items():
        if _sha256(folder / file) != wanted:
            message = "is not what was written: its SHA-256 differs. Make the golden outputs again"
            raise GoldenError(f"{folder / file}: {message}")
    both = hashlib.sha256("".join(sums.values()).encode()).hexdigest()
    return Golden(folder / INPUTS, folder / OUTPUTS, both[:16], **texts)


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
    :raises GoldenError: it cannot be read, has objects, or is larger than outputs are
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            size = sum(entry.file_size for entry in entries)
            if size > _ARRAY_BYTES:
                raise GoldenError(f"{path}: has {size} bytes of arrays, more than {_ARRAY_BYTES}")
            return {entry.filename.removesuffix(".npy"): _read_array(archive, entry) for entry in entries}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise GoldenError(f"{path}: is no file of arrays: {error}") from error


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


def _read_small(path: Path) -> str:
    try:
        with path.open("rb") as file:
            text = file.read(_DESCRIPTION_BYTES + 1)
    except FileNotFoundError:
        message = f"there are no golden outputs in {path.parent}: {path.name} is missing"
        raise GoldenError(message) from None
    except OSError as error:
        raise GoldenError(f"{path}: cannot be read: {error.strerror}") from error
    if len(text) > _DESCRIPTION_BYTES:
        raise GoldenError(f"{path}: has more than {_DESCRIPTION_BYTES} bytes")
    return text.decode(errors="replace")


def _sha256(path: Path) -> str:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise GoldenError(f"{path}: is no regular file")
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise GoldenError(f"{path}: cannot be read: {error.strerror}") from error
