"""Files of arrays: what was written comes back, and nothing in a file is run or believed."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastvlm_ops.core.coreml.arrays import ArraysError, read_arrays, write_arrays

OUTPUTS = {"logits": np.linspace(-1, 1, 8, dtype=np.float32), "state": np.float16([[0.5]])}


class Canary:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return Path.touch, (self.file,)


class TestArrays:
    @pytest.mark.parametrize("name", ["file", "allow_pickle", "a/b", "x.npy", "Größe"])
    def test_any_name(self, tmp_path: Path, name: str) -> None:
        write_arrays(tmp_path / "a.npz", {name: np.arange(3)})
        read = read_arrays(tmp_path / "a.npz")
        assert list(read) == [name]
        np.testing.assert_array_equal(read[name], np.arange(3))

    @pytest.mark.parametrize("array", [np.zeros((0, 3)), np.float64(2), np.asfortranarray(np.ones((2, 3)))])
    def test_any_form(self, tmp_path: Path, array: Any) -> None:
        write_arrays(tmp_path / "a.npz", {"a": array})
        read = read_arrays(tmp_path / "a.npz")["a"]
        assert read.shape == array.shape
        np.testing.assert_array_equal(read, array)
        read += 1  # it is one's own

    def test_the_same_arrays_give_the_same_bytes(self, tmp_path: Path) -> None:
        for name in ("a.npz", "b.npz"):
            write_arrays(tmp_path / name, OUTPUTS)
        assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()

    def test_objects_are_neither_written_nor_run(self, tmp_path: Path) -> None:
        evil = np.array([Canary(tmp_path / "canary")], dtype=object)
        with pytest.raises(ValueError, match="allow_pickle"):
            write_arrays(tmp_path / "a.npz", {"a": evil})
        np.savez(tmp_path / "evil.npz", a=evil, allow_pickle=True)
        with pytest.raises(ArraysError, match="is no file of arrays"):
            read_arrays(tmp_path / "evil.npz")
        assert not (tmp_path / "canary").exists()
        # And it is one that would run.
        pickle.loads(pickle.dumps(evil))  # noqa: S301
        assert (tmp_path / "canary").exists()

    def test_a_bomb_is_refused_by_its_size(self, tmp_path: Path) -> None:
        bomb = zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED)
        with bomb, bomb.open("a.npy", "w", force_zip64=True) as file:
            for _ in range(33):
                file.write(bytes(1 << 26))
        assert (tmp_path / "bomb.npz").stat().st_size < 1 << 22
        with pytest.raises(ArraysError, match="bytes of arrays, more than"):
            read_arrays(tmp_path / "bomb.npz")

    @pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x93NUMPY\x01\x00", bytes(range(256))])
    def test_garbage(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "a.npz").write_bytes(content)
        with pytest.raises(ArraysError, match="is no file of arrays"):
            read_arrays(tmp_path / "a.npz")

    def test_a_shape_that_the_bytes_cannot_fill(self, tmp_path: Path) -> None:
        header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776,), }"
        header += b" " * (117 - len(header)) + b"\n"
        with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
            archive.writestr("a.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
        with pytest.raises(ArraysError, match="has not the bytes of an array"):
            read_arrays(tmp_path / "a.npz")

    def test_absent(self, tmp_path: Path) -> None:
        with pytest.raises(ArraysError, match="No such file"):
            read_arrays(tmp_path / "a.npz")
