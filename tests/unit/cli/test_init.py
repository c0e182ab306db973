"""Files are put in place, and what a person did to them is respected."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from fastvlm_ops.cli import init, main
from fastvlm_ops.cli.shipped import shipped_files
from fastvlm_ops.core.config import load_components

FILE = "dags/backup_create.py"


def run(folder: Path, *arguments: str) -> int:
    return main(["init", "--into", str(folder), *arguments])


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != init.RECORD)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def ship(monkeypatch: pytest.MonkeyPatch, changes: dict[str, bytes]) -> None:
    """Let the next version have other files."""
    files = shipped_files() | changes
    monkeypatch.setattr(init, "shipped_files", lambda: files)


def test_everything_is_put_in_place(tmp_path: Path) -> None:
    assert run(tmp_path) == 0
    assert contents(tmp_path) == shipped_files()
    assert {name.split("/")[0] for name in shipped_files()} == {"dags", "include", "plugins"}


def test_a_second_time_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.py")}
    capsys.readouterr()
    assert run(tmp_path) == 0
    assert capsys.readouterr().out.startswith("all files are as this version has them\n")
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.py")} == before


def test_a_dry_run_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path / "new", "--dry-run") == 0
    assert f"written: {tmp_path / 'new' / FILE}" in capsys.readouterr().out
    assert not (tmp_path / "new").exists()


def test_an_unedited_file_is_renewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path)
    ship(monkeypatch, {FILE: b"# of the next version\n"})
    assert run(tmp_path) == 0
    assert (tmp_path / FILE).read_bytes() == b"# of the next version\n"
    assert not (tmp_path / f"{FILE}.new").exists()


def test_an_edited_file_is_never_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path)
    (tmp_path / FILE).write_bytes(b"# mine\n")
    run(tmp_path)
    assert not (tmp_path / f"{FILE}.new").exists()  # nothing is new
    ship(monkeypatch, {FILE: b"# of the next version\n"})
    assert run(tmp_path) == 0
    assert (tmp_path / FILE).read_bytes() == b"# mine\n"
    assert (tmp_path / f"{FILE}.new").read_bytes() == b"# of the next version\n"
    assert "backup_create.py.new over by hand" in capsys.readouterr().out
    (tmp_path / f"{FILE}.new").unlink()  # brought over
    run(tmp_path)
    assert not (tmp_path / f"{FILE}.new").exists()


def test_a_file_that_was_there_before_counts_as_edited(tmp_path: Path) -> None:
    (tmp_path / "include").mkdir()
    (tmp_path / "include" / "components.yaml").write_text("mine: true\n")
    run(tmp_path)
    assert (tmp_path / "include" / "components.yaml").read_text() == "mine: true\n"
    assert (tmp_path / "include" / "components.yaml.new").read_bytes() == shipped_files()[init.COMPONENTS]


def test_a_removed_file_stays_removed(tmp_path: Path) -> None:
    run(tmp_path)
    (tmp_path / FILE).unlink()
    run(tmp_path)
    assert not (tmp_path / FILE).exists()
    run(tmp_path, "--bring-back")
    assert (tmp_path / FILE).read_bytes() == shipped_files()[FILE]


@pytest.mark.parametrize("link", ["include", "include/schemas", "dags/backup_create.py"])
def test_nothing_is_written_through_a_link(
    tmp_path: Path, link: str, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere, target = tmp_path / "elsewhere", tmp_path / "target"
    elsewhere.mkdir()
    (target / link).parent.mkdir(parents=True)
    (target / link).symlink_to(elsewhere)
    if link == "include":  # the folder itself may be wherever a person wants it
        assert run(target) == 0
        return
    assert run(target) == 1
    assert f"{target / link} is a link" in capsys.readouterr().err
    assert list(elsewhere.iterdir()) == []
    assert contents(target) == {}


def test_a_record_that_cannot_be_read_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path)
    (tmp_path / "include" / init.RECORD).write_text("[]")
    assert run(tmp_path) == 1
    assert "which says what init wrote, cannot be read" in capsys.readouterr().err


def test_a_file_in_a_folders_place_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "dags").touch()
    assert run(tmp_path) == 1
    assert str(tmp_path / "dags") in capsys.readouterr().err


def test_components_from_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    sqlite3.connect(tmp_path / "app.db").execute("CREATE TABLE one (a)").connection.close()
    named = [f"photos={tmp_path / 'photos'}", f"app={tmp_path / 'app.db'}"]
    arguments = [word for name in named for word in ("--back-up", name)]
    assert run(tmp_path / "target", *arguments) == 0
    components = load_components(tmp_path / "target" / "include")
    found = [(component.name, component.kind, component.path) for component in components.components]
    assert found == [
        ("photos", "files", str(tmp_path / "photos")),
        ("app", "sqlite", str(tmp_path / "app.db")),
    ]
    assert run(tmp_path / "target", *arguments) == 0  # said again, it is no edit
    assert run(tmp_path / "target") == 0  # and without them it is not replaced
    assert load_components(tmp_path / "target" / "include").names == ["photos", "app"]


def test_edited_components_are_not_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path)
    (tmp_path / "include" / "components.yaml").write_text("mine: true\n")
    assert run(tmp_path, "--back-up", f"docs={tmp_path}") == 1
    assert "has been edited and is not replaced" in capsys.readouterr().err
    assert (tmp_path / "include" / "components.yaml").read_text() == "mine: true\n"


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("docs", "expected NAME=PATH"),
        ("docs=", "expected NAME=PATH"),
        ("docs=/no/such/folder", "/no/such/folder does not exist"),
        ("docs={file}", "is neither a folder nor an SQLite database"),
        ("Docs={folder}", "'Docs' cannot be a name"),
    ],
)
def test_components_that_cannot_be_are_refused_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], named: str, said: str
) -> None:
    (tmp_path / "file").write_text("no database")
    named = named.format(file=tmp_path / "file", folder=tmp_path)
    assert run(tmp_path / "target", "--back-up", named) == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "target").exists()


def test_the_record_says_which_version_wrote(tmp_path: Path) -> None:
    run(tmp_path)
    record = json.loads((tmp_path / "include" / init.RECORD).read_text())
    assert record["files"].keys() == shipped_files().keys()
