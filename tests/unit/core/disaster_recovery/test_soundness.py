"""Whether files that were restored can be used."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from fastvlm_ops.core.disaster_recovery.soundness.files import check_files


def sound(folder: Path) -> dict[str, int]:
    """What is sound; nothing else may have been found."""
    found = check_files(folder, None)
    assert (found.problems, found.unchecked) == ([], [])
    return dict(found.counts)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", b'{"a": [1, 2.5, null]}'),
        ("a.json", b"\xef\xbb\xbf[]"),
        ("a.json", '"größe"'.encode()),
        ("a.yaml", b"a: 1\n---\nb: !vault |\n  6163\n"),
        ("a.yml", b"a: &x [1]\nb: *x\n"),
        ("a.yaml", b""),
    ],
)
def test_what_can_be_parsed_is_sound(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    kind = "json" if name.endswith("json") else "yaml"
    assert sound(tmp_path) == {kind: 1}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", b""),
        ("a.json", b'{"a": 1'),
        ("a.json", b"\xff\xfe\xfd"),
        ("a.json", b"[" * 100_000),
        ("a.yaml", b"a: [1\n"),
        ("a.yaml", b"a: *nobody\n"),
        ("a.yaml", b"a\x00b"),
        ("a.yaml", b"\xff\xfe\xfd"),
    ],
)
def test_what_cannot_be_parsed_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / name).write_bytes(content)
    (problem,) = check_files(tmp_path, None).problems
    assert problem.startswith(f"folder/{name} is not ")


def test_links_are_not_followed_and_other_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "kit").mkdir()
    (tmp_path / "outside.json").write_text("broken")
    (tmp_path / "kit" / "link.json").symlink_to(tmp_path / "outside.json")
    (tmp_path / "kit" / "loop").symlink_to(tmp_path / "kit")
    (tmp_path / "kit" / "readme.txt").write_text("{")
    (tmp_path / "kit" / "Thumbs.db").write_bytes(b"something else")
    os.mkfifo(tmp_path / "kit" / "pipe.json")
    assert sound(tmp_path / "kit") == {}


def test_databases_are_checked_to_the_last_page(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE item (id INTEGER PRIMARY KEY, text TEXT)")
        database.execute("CREATE INDEX by_text ON item (text)")
        database.execute('CREATE TABLE "odd "" name" (a)')
        database.executemany("INSERT INTO item (text) VALUES (?)", [(f"{n:050}",) for n in range(2000)])
    found = check_files(tmp_path, None)
    assert found.evidence["rows"] == {"a.db": {"item": 2000, 'odd " name': 0}}
    assert found.counts == {"sqlite": 1}
    good = path.read_bytes()
    for page in range(1, len(good) // 4096, 7):
        path.write_bytes(good[: page * 4096] + bytes(4096) + good[(page + 1) * 4096 :])
        found = check_files(tmp_path, None)
        assert found.problems, page
        assert found.problems[0].startswith("a.db ")
    path.write_bytes(good[: len(good) // 2])
    assert check_files(tmp_path, None).problems
    path.write_bytes(good)
    assert sound(tmp_path) == {"sqlite": 1}
    assert sorted(os.listdir(tmp_path)) == ["a.db"], "nothing is written beside it"


def test_packages_are_looked_at_as_one(tmp_path: Path) -> None:
    package = tmp_path / "models" / "A.mlpackage"
    (package / "Data").mkdir(parents=True)
    (package / "Manifest.json").write_text("{ not JSON, which is for the parser of packages to say")
    seen: list[Path] = []

    def fine(path: Path) -> None:
        seen.append(path)

    assert check_files(tmp_path, fine).counts == {"packages": 1}
    assert seen == [package]

    def broken(path: Path) -> None:
        raise ValueError(f"{path}: model.mlmodel is cut off")

    def absent(path: Path) -> None:
        raise ImportError("No module named 'coremltools'")

    assert check_files(tmp_path, broken).problems == [
        "models/A.mlpackage cannot be used: model.mlmodel is cut off"
    ]
    (unchecked,) = check_files(tmp_path, absent).unchecked
    assert "install the extra coreml" in unchecked
    assert check_files(tmp_path, None).unchecked
