"""The model that is served: what its package computes, and only with every byte as its manifest says."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from fastvlm_ops.local.service.model import ModelError, load_model, store_signature
from fastvlm_ops.local.service.model_package import (
    LENGTH,
    MANIFEST,
    PACKAGE,
    build_model_store,
    write_manifest,
)

WEIGHTS = f"{PACKAGE}/Data/com.apple.CoreML/weights/weight.bin"
TEXT = "what is in this picture"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built") / "store"
    build_model_store(folder)
    return folder


@pytest.fixture
def store(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "store"))


def test_computes_what_the_package_does(store: Path) -> None:
    from fastvlm_ops.core.coreml.reference.model import ReferenceModel

    characters = np.frombuffer(TEXT.encode().ljust(LENGTH, b"\0"), np.uint8).astype(np.int32)
    (outputs,) = ReferenceModel(store / PACKAGE).predict({"characters": characters[None]}).values()
    scores = load_model(store, PACKAGE).infer(TEXT)
    np.testing.assert_allclose(scores, np.ravel(outputs), atol=0.01)


def test_the_same_bytes_each_time(built: Path, store: Path) -> None:
    shutil.rmtree(store)
    build_model_store(store)
    assert (store / MANIFEST).read_bytes() == (built / MANIFEST).read_bytes()


def test_only_the_first_bytes_of_a_text_count(store: Path) -> None:
    model = load_model(store, PACKAGE)
    assert model.infer("é" * LENGTH) == model.infer("é" * (LENGTH // 2))
    assert model.infer("") != model.infer("a")


def test_one_byte_of_any_file_is_found(store: Path) -> None:
    load_model(store, PACKAGE)
    files = [path for path in (store / PACKAGE).rglob("*") if path.is_file()]
    assert len(files) == 3
    for file in files:
        good = file.read_bytes()
        content = bytearray(good)
        content[-1] ^= 1
        file.write_bytes(content)
        with pytest.raises(ModelError, match="its SHA-256 differs"):
            load_model(store, PACKAGE)
        os.truncate(file, len(good) // 2)
        with pytest.raises(ModelError, match="its SHA-256 differs"):
            load_model(store, PACKAGE)
        file.unlink()
        with pytest.raises(ModelError, match="cannot be read: No such file"):
            load_model(store, PACKAGE)
        file.write_bytes(good)
    load_model(store, PACKAGE)


def test_a_file_too_many_is_found(store: Path) -> None:
    (store / PACKAGE / "more").touch()
    with pytest.raises(ModelError, match=r"more is not in manifest\.json"):
        load_model(store, PACKAGE)


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", '{"version": 2, "sha256": {}}', '{"version": 1, "sha256": {"a": 1}}', "null"]
)
def test_a_broken_manifest_is_refused(store: Path, content: str) -> None:
    (store / MANIFEST).write_text(content)
    with pytest.raises(ModelError, match="is no manifest"):
        load_model(store, PACKAGE)


def test_a_manifest_that_leads_elsewhere_or_knows_nothing_is_refused(store: Path, tmp_path: Path) -> None:
    manifest = json.loads((store / MANIFEST).read_text())
    with pytest.raises(ModelError, match=r"knows no weights of other\.mlpackage"):
        load_model(store, "other.mlpackage")
    manifest["sha256"][f"{PACKAGE}/../../outside"] = "0" * 64
    (tmp_path / "outside").write_text("x")
    (store / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(ModelError):
        load_model(store, PACKAGE)


def test_weights_of_another_form_are_refused(store: Path) -> None:
    for content in (b"", b"\0" * 200, (1).to_bytes(4, "little") + b"\0" * 200):
        (store / WEIGHTS).write_bytes(content)
        write_manifest(store)
        with pytest.raises(ModelError):
            load_model(store, PACKAGE)


def test_the_signature_changes_with_the_bytes_also_when_size_and_times_stay(store: Path) -> None:
    before, file = store_signature(store), store / WEIGHTS
    assert store_signature(store) == before
    times = file.stat()
    content = bytearray(file.read_bytes())
    content[100] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert store_signature(store) != before
    assert store_signature(store.parent / "absent") == ()
