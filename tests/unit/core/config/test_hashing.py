"""The fingerprint of include/."""

from __future__ import annotations

from pathlib import Path

from fastvlm_ops.core.config import include_hash


def fill(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_is_the_same_for_the_same_files(tmp_path: Path) -> None:
    one = fill(tmp_path / "one", {"a.yaml": "x", "b/c.yaml": "y"})
    other = fill(tmp_path / "other", {"b/c.yaml": "y", "a.yaml": "x", ".a.yaml.swp": "editor"})
    assert include_hash(one) == include_hash(other)


def test_differs_for_other_contents_names_and_boundaries(tmp_path: Path) -> None:
    contents = [
        {"a.yaml": "x", "b.yaml": "y"},
        {"a.yaml": "x", "b.yaml": "z"},
        {"a.yaml": "x", "c.yaml": "y"},
        {"a.yaml": "x", "b.yaml": "y", "c.yaml": ""},
        {"a.yaml": "xb.yaml\x001\x00y"},
    ]
    hashes = {include_hash(fill(tmp_path / str(number), files)) for number, files in enumerate(contents)}
    assert len(hashes) == len(contents)
