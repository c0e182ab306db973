"""The benchmark runs, on a small tree and once; nothing is said about how fast."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import backup, peers
from benchmarks.backup_results import OPERATIONS, Samples, beside_rows, describe_run, make_figures
from benchmarks.backup_tools import AWS, OURS, PEERS, RESTIC, Tool
from benchmarks.measuring import Cost
from benchmarks.peers import PeerUnavailableError
from benchmarks.running import work_folder
from fastvlm_ops.local.compare import Difference


def run_quick(folder: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    assert backup.main(["--quick", "--work", str(folder / "work"), "--output", str(folder / "out")]) == 0
    assert not (folder / "work").exists()
    texts = [(folder / "out" / name).read_text() for name in ("backup.json", "details/backup.json")]
    return json.loads(texts[0]), json.loads(texts[1])


@pytest.mark.integration
def test_without_peers_figures_beside_restic_are_not_met(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def absent(*_: object) -> Path:
        raise PeerUnavailableError("could not be run: not for this test")

    for find in ("find_restic", "find_rclone", "find_aws"):
        monkeypatch.setattr(peers, find, absent)
    figures, details = run_quick(tmp_path)
    beside = [figure for figure in figures if figure["peer"] is not None]
    assert len(beside) == 7
    for figure in beside:
        assert figure["peer"] == "could not be run: not for this test"
        assert (figure["peer_value"], figure["ratio"], figure["met"]) == (None, None, False)
        assert figure["value"] > 0
    assert {name: list(tools) for name, tools in details["runs"].items()} == {
        operation: [OURS] for operation in OPERATIONS
    }
    assert details["peers"].keys() == PEERS.keys()
    assert capsys.readouterr().out.count("could not be run: not for this test") >= len(PEERS)


@pytest.mark.integration
def test_beside_peers(tmp_path: Path) -> None:
    figures, details = run_quick(tmp_path)
    runs = details["runs"]
    assert runs["full"].keys() == {
        OURS,
        *(name for name in PEERS if "not be run" not in details["peers"][name]),
    }
    if RESTIC not in runs["full"]:
        pytest.skip(details["peers"][RESTIC])
    for figure in figures:
        if figure["peer"] is not None:
            assert figure["peer"].startswith("restic ")
            assert figure["ratio"] == pytest.approx(figure["value"] / figure["peer_value"], rel=0.01)
    for tool in runs["full"]:
        sent = [runs[operation][tool][0]["sent_bytes"] for operation in OPERATIONS]
        assert min(sent[:2]) > 100 * sent[2]
        assert sent[3] == 0
        if tool in (OURS, RESTIC):
            assert sent[2] > 0
            assert details["stored_bytes"][tool][0] >= sum(sent)
        else:  # a mirror stores what it replaces once
            assert max(sent) <= details["stored_bytes"][tool][0] < sum(sent)
    assert {"processor", "cores", "memory_bytes", "system"} <= details["machine"].keys()


def samples_of_three_rounds() -> Samples:
    samples = Samples()
    for operation in OPERATIONS:
        for tool, factor in ((OURS, 1), (RESTIC, 2), (AWS, 3)):
            for wall in (1.0, 50.0, 2.0):
                samples.add(operation, tool, Cost(wall * factor, wall * factor, 100 << 20, 10 << 20))
    samples.stored_bytes = {OURS: [1 << 20, 3 << 20, 2 << 20], RESTIC: [4 << 20] * 3, AWS: [5 << 20] * 3}
    return samples


def test_figures_are_of_medians() -> None:
    figures = {
        figure.name: figure for figure in make_figures(samples_of_three_rounds(), {RESTIC: "restic 1"})
    }
    assert figures["restore, wall time"].value == 2.0
    assert figures["restore, wall time"].peer_value == 4.0
    assert figures["stored after both backups"].ratio == 0.5
    assert figures["peak memory of any operation"].value == 100
    assert figures["nothing changed, bytes sent"].met is False


def test_all_programs_stand_beside_each_other() -> None:
    peers = {RESTIC: "restic 1", "rclone sync": "rclone could not be run", AWS: "aws s3 sync 2"}
    samples = samples_of_three_rounds()
    rows = beside_rows(samples, peers, {OURS: "0.1"})
    assert rows[0][:4] == ("", "fastvlm-ops 0.1", "restic 1", "aws s3 sync 2")
    assert ("restore, wall time", "2.00 s", "4.00 s", "6.00 s", "0.50", "≤ 0.8", "met") in rows
    again = Samples.from_details(describe_run(samples, peers, {}, [0.0]))
    assert beside_rows(again, peers, {OURS: "0.1"}) == rows


def test_mirrors_must_restore_what_they_keep(tmp_path: Path) -> None:
    tool = Tool(
        "mirror", "1", lambda *_: [], lambda _: {}, tmp_path, tmp_path, frozenset({"entry", "contents"})
    )
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    assert tool.must_restore(Difference("file", "contents", 1, 2))
    assert tool.must_restore(Difference("gone", "entry", 1, 2))
    assert not tool.must_restore(Difference("file", "mode", 1, 2))
    assert not tool.must_restore(Difference("folder", "mode", 1, 2))
    assert replace(tool, restores=None).must_restore(Difference("file", "mode", 1, 2))


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
        work_folder(tmp_path / "work"),
        pytest.raises(SystemExit, match="another one is running"),
        work_folder(tmp_path / "work"),
    ):
        pass
