"""Serves the model of a model store: only what its manifest says, byte by byte."""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastvlm_ops.local.service.model_package import CHARACTERS, HIDDEN, LENGTH, MANIFEST, SCORES, WIDTH

if TYPE_CHECKING:
    import numpy as np

_WEIGHTS = "Data/com.apple.CoreML/weights/weight.bin"
# Of a blob file of Core ML: how many blobs, a version, padding to 64 bytes; then, for each blob, on a border
# of 64 bytes, a sentinel, its type, its size and where its data begins.
_BORDER = 64
_SENTINEL = 0xDEADBEEF
_FP16 = 1
_FEWEST_WEIGHTS = 1000  # less is a bias, a table or a mask


class ModelError(Exception):
    """The model store does not hold the model as its manifest says."""


@dataclass(frozen=True)
class Model:
    """A model that was loaded.

    :param name: of its package
    :param sha256: of its weights
    :param embedding: a row for each byte
    :param hidden: weights of the hidden layer
    :param scores: weights of the scores
    """

    name: str
    sha256: str
    embedding: np.ndarray
    hidden: np.ndarray
    scores: np.ndarray

    def infer(self, text: str) -> list[float]:
        """Return the scores of a text, the same for the same text and weights.

        :param text: of which only the first bytes count
        """
        import numpy as np

        characters = np.frombuffer(text.encode()[:LENGTH].ljust(LENGTH, b"\0"), np.uint8)
        mean = self.embedding[characters].astype(np.float64).mean(axis=0)
        hidden = np.tanh(self.hidden.astype(np.float64) @ mean)
        return [round(float(score), 6) for score in self.scores.astype(np.float64) @ hidden]


def load_model(store: Path, package: str) -> Model:
    """Check all files of a package, and load it.

    :param store: the model store
    :param package: name of the package in it
    :raises ModelError: a file is missing, too many, or not what the manifest says
    """
    wanted = {
        name: sha256 for name, sha256 in _read_manifest(store).items() if name.startswith(f"{package}/")
    }
    weights = f"{package}/{_WEIGHTS}"
    if weights not in wanted:
        raise ModelError(f"{MANIFEST} knows no weights of {package}")
    contents = {name: _read(store, name) for name in wanted}
    for name, content in contents.items():
        if hashlib.sha256(content).hexdigest() != wanted[name]:
            raise ModelError(f"{name} is not what {MANIFEST} says: its SHA-256 differs")
    present = {path.relative_to(store).as_posix() for path in (store / package).rglob("*") if path.is_file()}
    if more := sorted(present - set(wanted)):
        raise ModelError(f"{more[0]} is not in {MANIFEST}")
    return _build(package, wanted[weights], contents[weights])


def store_signature(store: Path) -> tuple[tuple[Any, ...], ...]:
    """Return what changes when any file of a store does, also one whose size and times are put back.

    :param store: the model store, which may be absent
    """
    found = []
    for path in sorted(store.rglob("*")):
        try:
            stat = path.lstat()
        except OSError:  # it has just gone
            continue
        found.append((str(path), stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns))
    return tuple(found)


def _read_manifest(store: Path) -> dict[str, str]:
    try:
        content = json.loads(_read(store, MANIFEST))
        hashes: dict[str, str] = content["sha256"]
        if content["version"] != 1 or not all(isinstance(value, str) for value in hashes.values()):
            raise ValueError
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ModelError(f"{MANIFEST} of the model store is no manifest") from None
    return hashes


def _read(store: Path, name: str) -> bytes:
    try:
        return (store / name).read_bytes()
    except OSError as error:
        raise ModelError(f"{name} of the model store cannot be read: {error.strerror}") from None


def _build(package: str, sha256: str, content: bytes) -> Model:
    try:
        blobs = [blob for blob in _read_blobs(content) if blob.size >= _FEWEST_WEIGHTS]
    except (struct.error, ValueError):
        raise ModelError(f"the weights of {package} are no blob file") from None
    shapes = ((CHARACTERS, WIDTH), (HIDDEN, WIDTH), (SCORES, HIDDEN))
    if [blob.size for blob in blobs] != [rows * columns for rows, columns in shapes]:
        raise ModelError(f"{package} is not of the form that this service computes")
    embedding, hidden, scores = (blob.reshape(shape) for blob, shape in zip(blobs, shapes, strict=True))
    return Model(package, sha256, embedding, hidden, scores)


def _read_blobs(content: bytes) -> list[np.ndarray]:
    import numpy as np

    blobs: list[np.ndarray] = []
    (count,) = struct.unpack_from("<I", content)
    place = _BORDER
    for _ in range(count):
        sentinel, kind, size, start = struct.unpack_from("<IIQQ", content, place)
        if sentinel != _SENTINEL:
            raise ValueError("no blob begins here")
        if kind == _FP16:
            blobs.append(np.frombuffer(content, np.float16, size // 2, start))
        place = -(-(start + size) // _BORDER) * _BORDER
    return blobs
