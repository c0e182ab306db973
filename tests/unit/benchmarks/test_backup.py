"""The benchmark runs, on a small tree and once; nothing is said about how fast."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import backup
from benchmarks.backup import OPERATIONS, OURS, RESTIC, Samples, make_figures
from benchmarks.measuring import Cost
from benchmarks.restic import PeerUnavailableError, find_restic


def run_quick(folder: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    assert backup.main(["--quick", "--work", str(folder / "work"), "--output", str(folder / "out")]) == 0
    assert not (folder / "work").exists()
    texts = [(folder / "out" / name).read_text() for name in ("backup.json", "details/backup.json")]
    return json.loads(texts[0]), json.loads(texts[1])


@pytest.mark.integration
def test_without_restic_figures_beside_it_are_not_met(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def absent(cache: Path) -> Path:
        raise PeerUnavailableError("restic could not be run: not for this test")

    monkeypatch.setattr(backup, "find_restic", absent)
    figures, details = run_quick(tmp_path)
    beside = [figure for figure in figures if figure["peer"] is not None]
    assert len(beside) == 7
    for figure in beside:
        assert figure["peer"] == "restic could not be run: not for this test"
        assert (figure["peer_value"], figure["ratio"], figure["met"]) == (None, None, False)
        assert figure["value"] > 0
    assert {name: list(tools) for name, tools in details["runs"].items()} == {
        operation: [OURS] for operation in OPERATIONS
    }
    assert "restic could not be run: not for this test" in capsys.readouterr().out


@pytest.mark.integration
def test_beside_restic(tmp_path: Path) -> None:
    try:
        find_restic(backup.ROOT / ".tools" / "restic")
    except PeerUnavailableError as error:
        pytest.skip(str(error))
    figures, details = run_quick(tmp_path)
    for figure in figures:
        if figure["peer"] is not None:
            assert figure["peer"].startswith("restic ")
            assert figure["ratio"] == pytest.approx(figure["value"] / figure["peer_value"], rel=0.01)
    runs = details["runs"]
    for tool in (OURS, RESTIC):
        sent = [runs[operation][tool][0]["sent_bytes"] for operation in OPERATIONS]
        assert min(sent[:2]) > 100 * sent[2] > sent[3] == 0
        assert details["stored_bytes"][tool][0] >= sum(sent)
    assert {"processor", "cores", "memory_bytes", "system"} <= details["machine"].keys()


def test_figures_are_of_medians() -> None:
    samples = Samples()
    for operation in OPERATIONS:
        for tool, factor in ((OURS, 1), (RESTIC, 2)):
            for wall in (1.0, 50.0, 2.0):
                samples.add(operation, tool, Cost(wall * factor, wall * factor, 100 << 20, 10 << 20))
    samples.stored_bytes = {OURS: [1 << 20, 3 << 20, 2 << 20], RESTIC: [4 << 20] * 3}
    figures = {figure.name: figure for figure in make_figures(samples, "restic 1")}
    assert figures["restore, wall time"].value == 2.0
    assert figures["restore, wall time"].peer_value == 4.0
    assert figures["stored after both backups"].ratio == 0.5
    assert figures["peak memory of any operation"].value == 100
    assert figures["nothing changed, bytes sent"].met is False


def test_a_database_that_differs_in_more_than_counters_is_seen(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    content = bytearray(b"SQLite format 3\0" + bytes(8192))
    one.write_bytes(content)
    content[27], content[43], content[95] = 1, 2, 3
    two.write_bytes(content)
    assert backup._same_database(one, two)
    content[5000] = 1
    two.write_bytes(content)
    assert not backup._same_database(one, two)


def test_two_at_once_are_refused(tmp_path: Path) -> None:
    with (
        backup.work_folder(tmp_path / "work"),
        pytest.raises(SystemExit, match="another one is running"),
        backup.work_folder(tmp_path / "work"),
    ):
        pass
