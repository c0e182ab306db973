"""Packages on disk: found by version, confined to themselves, identified by their bytes."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from fastvlm_ops.core.config import ModelDefinition
from fastvlm_ops.core.coreml.errors import PackageRefusedError
from fastvlm_ops.core.coreml.packages import digest, find_packages, open_package, version_key

MODEL = "Data/com.apple.CoreML/model.mlmodel"
WEIGHTS = "Data/com.apple.CoreML/weights/weight.bin"


def refusal(package: Path) -> str:
    with pytest.raises(PackageRefusedError) as caught:
        open_package(package)
    assert caught.value.path == str(package)
    return caught.value.reason


def change_manifest(package: Path, **changes: Any) -> None:
    """Change the manifest: `model` and `weights` are paths, all else stands at the top."""
    file = package / "Manifest.json"
    content = json.loads(file.read_text())
    for item in content["itemInfoEntries"].values():
        key = "weights" if item["name"] == "weights" else "model"
        item["path"] = changes.pop(key, item["path"])
    file.write_text(json.dumps({**content, **changes}))


def packages_named(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).mkdir(parents=True)


class TestFinding:
    def test_newest_first(self, tmp_path: Path) -> None:
        packages_named(
            tmp_path / "models", *(f"A-v{v}.mlpackage" for v in ("1", "10", "2.0-rc1", "2.0", "9"))
        )
        packages_named(tmp_path / "models", "B-v11.mlpackage", "A-v3.mlpackage.tmp", "A-v.mlpackage")
        model = ModelDefinition(name="A", path="models/A-v{version}.mlpackage")
        found = find_packages(model, tmp_path)
        assert [package.version for package in found] == ["10", "9", "2.0", "2.0-rc1", "1"]
        assert found[0].path == tmp_path / "models" / "A-v10.mlpackage"
        assert {package.name for package in found} == {"A"}

    def test_a_version_may_be_a_folder(self, tmp_path: Path) -> None:
        packages_named(tmp_path, "models/2026.10/A.mlpackage", "models/2026.9/A.mlpackage", "models/2026.11")
        model = ModelDefinition(name="A", path="models/{version}/A.mlpackage")
        assert [package.version for package in find_packages(model, tmp_path)] == ["2026.10", "2026.9"]

    def test_none(self, tmp_path: Path) -> None:
        assert find_packages(ModelDefinition(name="A", path="models/A-{version}.mlpackage"), tmp_path) == []

    def test_what_cannot_be_a_version_is_not_passed_over(self, tmp_path: Path) -> None:
        packages_named(tmp_path, "A-v1.mlpackage", "A-v1 copy.mlpackage")
        with pytest.raises(PackageRefusedError, match="'1 copy' cannot be a version"):
            find_packages(ModelDefinition(name="A", path="A-v{version}.mlpackage"), tmp_path)

    def test_a_folder_that_is_a_file_is_told(self, tmp_path: Path) -> None:
        (tmp_path / "models").touch()
        with pytest.raises(PackageRefusedError, match="cannot be listed: Not a directory"):
            find_packages(ModelDefinition(name="A", path="models/A-v{version}.mlpackage"), tmp_path)

    @pytest.mark.parametrize(
        ("older", "newer"),
        [
            ("9", "10"),
            ("1.9", "1.10"),
            ("1.0", "1.0.1"),
            ("2.0-rc1", "2.0"),
            ("2.0-beta2", "2.0-rc1"),
            ("2.0-rc2", "2.0-rc10"),
            ("main", "1"),
            ("20260101", "20260102"),
        ],
    )
    def test_versions_in_order(self, older: str, newer: str) -> None:
        assert version_key(older) < version_key(newer)


class TestOpening:
    def test_what_a_package_consists_of(self, vision_package: Path) -> None:
        files = open_package(vision_package)
        assert files.manifest == vision_package / "Manifest.json"
        assert files.model_file == vision_package / MODEL
        assert files.weight_files == {"weights/weight.bin": (vision_package / WEIGHTS).stat().st_size}
        assert files.size_bytes == sum(f.stat().st_size for f in vision_package.rglob("*") if f.is_file())

    def test_files_that_the_manifest_does_not_name_are_counted(self, own_package: Path) -> None:
        before = open_package(own_package)
        (own_package / ".DS_Store").write_bytes(bytes(100))
        after = open_package(own_package)
        assert after.size_bytes == before.size_bytes + 100
        assert after.weight_files == before.weight_files

    @pytest.mark.parametrize(
        "path",
        [
            "../../outside/model.mlmodel",
            "com.apple.CoreML/../../../outside/model.mlmodel",
            "/etc/passwd",
            "com.apple.CoreML\\model.mlmodel",
            "com.apple.CoreML/model.mlmodel\0.txt",
            "",
            ".",
            7,
            None,
        ],
    )
    @pytest.mark.parametrize("key", ["model", "weights"])
    def test_a_path_that_leads_elsewhere(self, own_package: Path, key: str, path: object) -> None:
        outside = own_package.parent / "outside"
        outside.mkdir()
        shutil.copy(own_package / MODEL, outside / "model.mlmodel")
        change_manifest(own_package, **{key: path})
        reason = refusal(own_package)
        assert "Manifest.json leads out of the package" in reason or "for a path" in reason

    @pytest.mark.parametrize("place", [MODEL, WEIGHTS, "Manifest.json", "Data", "Data/com.apple.CoreML/more"])
    def test_links(self, own_package: Path, place: str) -> None:
        path = own_package / place
        kept = own_package.parent / "kept"
        if path.exists():
            path.rename(kept)
        else:
            kept.touch()
        path.symlink_to(kept)
        assert refusal(own_package) == f"{place} is a symbolic link; expected files and folders only"

    def test_a_package_that_is_a_link(self, own_package: Path) -> None:
        link = own_package.with_name("latest.mlpackage")
        link.symlink_to(own_package)
        assert "is no Core ML package" in refusal(link)

    def test_a_pipe_is_refused_and_not_waited_for(self, own_package: Path) -> None:
        (own_package / WEIGHTS).unlink()
        os.mkfifo(own_package / WEIGHTS)
        assert refusal(own_package) == f"{WEIGHTS} is no regular file; expected files and folders only"
        with pytest.raises(PackageRefusedError, match="is no regular file"):
            digest(own_package)

    @pytest.mark.parametrize("place", [MODEL, WEIGHTS])
    def test_an_empty_file(self, own_package: Path, place: str) -> None:
        (own_package / place).write_bytes(b"")
        assert "is empty" in refusal(own_package)

    @pytest.mark.parametrize(
        ("place", "expected"),
        [
            (MODEL, "as the model, which is no file in it"),
            ("Manifest.json", "has no Manifest.json"),
        ],
    )
    def test_a_file_that_is_missing(self, own_package: Path, place: str, expected: str) -> None:
        (own_package / place).unlink()
        assert expected in refusal(own_package)

    def test_weights_that_are_missing(self, own_package: Path) -> None:
        shutil.rmtree((own_package / WEIGHTS).parent)
        assert "'Data/com.apple.CoreML/weights', which is not in it" in refusal(own_package)

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("{", "is not JSON as expected"),
            ("[" * 100_000, "is not JSON as expected"),
            ("[]", "lacks itemInfoEntries"),
            ("{}", "lacks itemInfoEntries"),
            ('{"itemInfoEntries": [], "rootModelIdentifier": "a"}', "lacks itemInfoEntries"),
            ('{"itemInfoEntries": {"a": {}}, "rootModelIdentifier": "a"}', "lacks itemInfoEntries"),
            ('{"itemInfoEntries": {}, "rootModelIdentifier": "a"}', "names a model, 'a', that is none"),
            ('{"itemInfoEntries": {}, "rootModelIdentifier": []}', "names a model, [], that is none"),
            ('{"itemInfoEntries": {}, "itemInfoEntries": {}, "rootModelIdentifier": ""}', "stands twice"),
            ("\udcff", "is not JSON as expected"),
            (" " * (1 << 20) + "{}", "has more than 1048576 bytes"),
        ],
    )
    def test_a_manifest_that_is_none(self, own_package: Path, text: str, expected: str) -> None:
        (own_package / "Manifest.json").write_bytes(text.encode(errors="surrogateescape"))
        assert expected in refusal(own_package)

    def test_a_folder_of_endless_files(self, own_package: Path) -> None:
        for number in range(1001):
            (own_package / f"{number}").touch()
        assert "has more than 1000 files" in refusal(own_package)

    def test_other_kinds(self, own_package: Path, tmp_path: Path) -> None:
        compiled = own_package.rename(tmp_path / "A.mlmodelc")
        assert "give the .mlpackage that it was made from" in refusal(compiled)
        assert "expected a folder whose name ends in .mlpackage" in refusal(compiled.rename(tmp_path / "A"))
        (tmp_path / "A.mlpackage").write_bytes(b"PK")
        assert "expected a folder whose name ends in .mlpackage" in refusal(tmp_path / "A.mlpackage")
        assert "No such file" in refusal(tmp_path / "absent.mlpackage")
        assert "cannot be a path" in refusal(tmp_path / "nul\0.mlpackage")


class TestDigest:
    def test_the_same_bytes_anywhere(self, text_package: Path, own_package: Path) -> None:
        assert digest(text_package) == digest(own_package)
        model = ModelDefinition(name="TextDecoder", path="TextDecoder-v{version}.mlpackage")
        (found,) = find_packages(model, own_package.parent)
        assert found.digest == digest(text_package)

    @pytest.mark.parametrize("change", ["byte", "name", "more", "moved"])
    def test_any_change_is_another(self, own_package: Path, change: str) -> None:
        before, file = digest(own_package), own_package / WEIGHTS
        content = file.read_bytes()
        if change == "byte":
            file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        elif change == "name":
            file.rename(file.with_name("weights.bin"))
        elif change == "more":
            (own_package / "more").touch()
        else:  # the same bytes in a row, split elsewhere
            file.write_bytes(content[:-4])
            file.with_name("weight.bin0").write_bytes(content[-4:])
        assert digest(own_package) != before

    def test_links_have_none(self, own_package: Path) -> None:
        (own_package / "more").symlink_to("Manifest.json")
        with pytest.raises(PackageRefusedError, match="more is a symbolic link"):
            digest(own_package)

    def test_nor_has_a_package_that_is_a_link(self, own_package: Path) -> None:
        link = own_package.with_name("latest.mlpackage")
        link.symlink_to(own_package)
        with pytest.raises(PackageRefusedError, match="links are not followed"):
            digest(link)
