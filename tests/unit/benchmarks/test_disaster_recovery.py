"""The independent client's arithmetic, which shares no line with ours, agrees with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.disaster_recovery import drill_figures, rows_table
from benchmarks.disaster_recovery_client import Seen, read_seen
from benchmarks.disaster_recovery_drills import DrillRun, rows_wrong
from fastvlm_ops.core.disaster_recovery.ledger import (
    WRITE_COLUMNS,
    WRITES_FILE,
    ProbeRecord,
    WriteRecord,
    write_row,
)
from fastvlm_ops.core.disaster_recovery.measuring import LostWrite, Measures, measure
from fastvlm_ops.core.disaster_recovery.service_requests import payload_hash

FAULT = 10**12
STEP = 20_000_000
HISTORY = st.lists(st.booleans(), min_size=3, max_size=300)


@given(requests=HISTORY, writes=HISTORY, begin=st.integers(-50, 10))
def test_both_call_the_same_recovery(requests: list[bool], writes: list[bool], begin: int) -> None:
    # A quiet end, so that neither has to guess what comes behind it.
    asked = {
        "request": [(FAULT + (begin + n) * STEP, ok) for n, ok in enumerate([*requests, *[True] * 60])],
        "write": [(FAULT + (begin + n) * STEP + 7, ok) for n, ok in enumerate([*writes, *[True] * 60])],
    }
    seen = Seen({what: [(sent, sent + 1000, ok) for sent, ok in events] for what, events in asked.items()})
    probes = [ProbeRecord(n, sent, sent + 1000, ok) for n, (sent, ok) in enumerate(asked["request"])]
    canary = [
        WriteRecord(n, f"w-{n}", "", sent, "acknowledged" if ok else "failed", sent + 1000)
        for n, (sent, ok) in enumerate(asked["write"])
    ]
    assert seen.rto_seconds(FAULT) == measure(probes, canary, {}, FAULT).rto_seconds


def test_a_client_that_saw_no_recovery_says_so() -> None:
    assert Seen({"request": [(FAULT + 1, FAULT + 2, False)]}).rto_seconds(FAULT) is None
    assert Seen({"request": []}).rto_seconds(FAULT) is None


def test_what_a_client_writes_comes_back(tmp_path: Path) -> None:
    events = [
        {"what": "request", "sent": 5, "answered": 6, "answer": "aa"},
        {"what": "write", "id": "c-0", "payload": "x", "sent": 1, "answered": 2, "acknowledged": True},
        {"what": "request", "sent": 3, "answered": 4, "answer": "bb"},
        {"what": "write", "id": "c-1", "payload": "y", "sent": 2, "answered": 9, "acknowledged": False},
    ]
    file = tmp_path / "client.jsonl"
    file.write_text("".join(json.dumps(event) + "\n" for event in events) + '{"what": "wri')
    seen = read_seen(file)
    assert seen.asked == {
        "request": [(3, 4, False), (5, 6, True)],
        "write": [(1, 2, True), (2, 9, False)],
    }
    assert seen.written == {"c-0": (1, 2, "x")}
    assert seen.lost(10, {"c-0": "x"}) == {}
    assert seen.lost(10, {"c-0": "z"}) == {"c-0": 1}
    assert seen.lost(1, {}) == {}


def test_each_row_that_is_called_wrongly_counts(tmp_path: Path) -> None:
    writes = [WriteRecord(n, f"f-{n}", payload_hash("p"), n, "acknowledged", n + 1) for n in range(4)]
    lines = [",".join(row) + "\n" for row in (WRITE_COLUMNS, *map(write_row, writes))]
    (tmp_path / WRITES_FILE).write_text("".join(lines))
    lost = LostWrite(id="f-3", sent_seconds=-1, acknowledged_seconds=-1, what="missing")
    rows = {"f-0": "p", "f-1": "p", "f-2": "p", "c-0": "x"}
    seen = Seen(written={"c-0": (1, 2, "x"), "c-1": (3, 4, "y")})
    assert rows_wrong(Measures(lost=(lost,)), tmp_path, seen, 10, rows) == 0
    assert rows_wrong(Measures(), tmp_path, seen, 10, rows) == 1
    assert rows_wrong(Measures(), tmp_path, seen, 3, rows) == 0  # neither was acknowledged by then
    assert rows_wrong(Measures(lost=(lost,)), tmp_path, seen, 10, {**rows, "f-3": "p"}) == 1


def run(rto: float | None, client: float | None, *, wrong: int = 0) -> DrillRun:
    measures = Measures(rto_seconds=rto, rpo_seconds=0.0)
    return DrillRun("x", "PASS", "well", measures, 12.5, client, 0, wrong)


def test_an_rto_that_is_not_known_meets_no_target() -> None:
    good = {figure.name: figure.met for figure in drill_figures({"primary lost, sync": [run(1.0, 1.19)]})}
    assert all(good.values())
    for other in (run(None, 1.0), run(1.0, None), run(1.0, 1.3)):
        figures = drill_figures({"primary lost, sync": [run(1.0, 1.1), other]})
        assert not figures[0].met
    assert not drill_figures({"x": [run(1.0, 1.0, wrong=1)]})[2].met
    assert rows_table({"x": [run(None, 1.0)]})[1][4:6] == ("-", "1.000")


def test_without_drills_no_target_is_met() -> None:
    assert not drill_figures({})[0].met


@pytest.mark.parametrize("right", [True, False])
def test_the_first_answer_says_what_is_right(tmp_path: Path, right: bool) -> None:
    answers = ["aa", "aa" if right else "cc"]
    lines = [{"what": "request", "sent": n, "answered": n, "answer": one} for n, one in enumerate(answers)]
    file = tmp_path / "client.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert [ok for _, _, ok in read_seen(file).asked["request"]] == [True, right]
