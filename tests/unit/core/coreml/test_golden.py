"""Golden inputs and outputs: as they were written, or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastvlm_ops.core.coreml.errors import GoldenError
from fastvlm_ops.core.coreml.golden import Golden, load_golden, write_golden

INPUTS = {"tokens": np.arange(6, dtype=np.int32).reshape(2, 3)}
OUTPUTS = {"logits": np.linspace(-1, 1, 8, dtype=np.float32), "state": np.float16([[0.5]])}


@pytest.fixture
def golden(tmp_path: Path) -> Golden:
    return write(tmp_path / "Model.golden")


def write(folder: Path, outputs: Any = OUTPUTS) -> Golden:
    return write_golden(folder, INPUTS, outputs, model="Model", made_by="linux-reference fp32", digest="ab12")


def change(golden: Golden, **changes: Any) -> None:
    file = golden.inputs.with_name("golden.json")
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_as_they_were_written(golden: Golden, tmp_path: Path) -> None:
    loaded = load_golden(tmp_path / "Model.golden")
    assert loaded == golden
    assert (loaded.model, loaded.made_by, loaded.made_from_digest) == (
        "Model",
        "linux-reference fp32",
        "ab12",
    )
    assert loaded.created_at.endswith("+00:00")
    for read, wanted in ((loaded.read_inputs(), INPUTS), (loaded.read_outputs(), OUTPUTS)):
        assert list(read) == list(wanted)
        for name, values in wanted.items():
            assert (read[name].dtype, read[name].shape) == (values.dtype, values.shape)
            np.testing.assert_array_equal(read[name], values)
    assert sorted(os.listdir(tmp_path / "Model.golden")) == ["golden.json", "inputs.npz", "outputs.npz"]


def test_the_id_is_of_the_contents(golden: Golden, tmp_path: Path) -> None:
    assert write(tmp_path / "again").id == golden.id
    assert write(tmp_path / "other", {"logits": np.float32([1])}).id != golden.id


def test_written_again_they_are_replaced(golden: Golden, tmp_path: Path) -> None:
    write(tmp_path / "Model.golden", {"logits": np.float32([1])})
    assert load_golden(tmp_path / "Model.golden").read_outputs() == {"logits": np.float32([1])}


def test_what_was_begun_and_not_ended_is_none(golden: Golden, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that ends half-way leaves no old description beside new arrays."""
    folder = golden.inputs.parent
    (folder / "outputs.npz").unlink()
    (folder / "outputs.npz").mkdir()  # so that nothing can be put there
    with pytest.raises(OSError, match=r"outputs\.npz"):
        write(folder, {"logits": np.float32([1])})
    with pytest.raises(GoldenError, match=r"golden\.json is missing"):
        load_golden(folder)


@pytest.mark.parametrize("name", ["inputs.npz", "outputs.npz"])
def test_a_byte_that_changed(golden: Golden, name: str) -> None:
    file = golden.inputs.with_name(name)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(GoldenError, match=rf"{name}: is not what was written: its SHA-256 differs"):
        load_golden(file.parent)


@pytest.mark.parametrize("name", ["golden.json", "inputs.npz", "outputs.npz"])
def test_a_file_that_is_missing(golden: Golden, name: str) -> None:
    golden.inputs.with_name(name).unlink()
    with pytest.raises(GoldenError, match=name):
        load_golden(golden.inputs.parent)


def test_a_pipe_is_refused_and_not_waited_for(golden: Golden) -> None:
    golden.outputs.unlink()
    os.mkfifo(golden.outputs)
    with pytest.raises(GoldenError, match=r"outputs\.npz: is no regular file"):
        load_golden(golden.outputs.parent)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"schema": 2}, "has schema 2; this version reads 1"),
        ({"model": None}, "something else than text"),
        ({"outputs_sha256": ["a"]}, "something else than text"),
        ({"more": "x" * (1 << 16)}, "has more than 65536 bytes"),
    ],
)
def test_a_description_that_is_another(golden: Golden, changes: dict[str, Any], expected: str) -> None:
    change(golden, **changes)
    with pytest.raises(GoldenError, match=expected):
        load_golden(golden.inputs.parent)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("{", "is not JSON"), ("[]", "lacks"), ('{"schema": 1}', "lacks 'model'"), ("\udcff", "is not JSON")],
)
def test_a_description_that_is_none(golden: Golden, text: str, expected: str) -> None:
    golden.inputs.with_name("golden.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(GoldenError, match=expected):
        load_golden(golden.inputs.parent)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_outputs_that_nothing_can_match(tmp_path: Path, bad: float) -> None:
    with pytest.raises(GoldenError, match="output 'logits' has values that are not finite"):
        write(tmp_path / "golden", {"logits": np.float32([1, bad])})
    assert not (tmp_path / "golden").exists()


def test_none_are_no_golden_outputs(tmp_path: Path) -> None:
    with pytest.raises(GoldenError, match="needs at least one input and one output"):
        write(tmp_path / "golden", {})


def test_arrays_that_are_none_are_golden_errors_too(golden: Golden) -> None:
    golden.outputs.write_bytes(b"PK")
    with pytest.raises(GoldenError, match=r"outputs\.npz: is no file of arrays"):
        golden.read_outputs()
