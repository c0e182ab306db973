"""Golden inputs and outputs of a model: what it is given, and what the original gave back.

They lie in a folder beside the packages: ``inputs.npz`` and ``outputs.npz``, with one array a name, and
``golden.json``, which has their SHA-256. It is written last, so that a folder with it is complete.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastvlm_ops.core.coreml.arrays import Arrays, ArraysError, read_arrays, write_arrays
from fastvlm_ops.core.coreml.errors import GoldenError

SCHEMA_VERSION = 1
DESCRIPTION = "golden.json"
INPUTS = "inputs.npz"
OUTPUTS = "outputs.npz"
_DESCRIPTION_BYTES = 1 << 16


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
        return _read(self.inputs)

    def read_outputs(self) -> dict[str, NDArray[Any]]:
        """Return the outputs by name.

        :raises GoldenError: they cannot be read
        """
        return _read(self.outputs)


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


def _read(path: Path) -> dict[str, NDArray[Any]]:
    try:
        return read_arrays(path)
    except ArraysError as error:
        raise GoldenError(str(error)) from error


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
