"""What the observer writes comes back as it was, however it was killed."""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastvlm_ops.core.disaster_recovery.ledger import (
    PROBE_COLUMNS,
    PROBES_FILE,
    WRITE_COLUMNS,
    WRITES_FILE,
    LedgerError,
    ProbeRecord,
    WriteRecord,
    probe_row,
    read_probes,
    read_writes,
    write_row,
)

NANOSECONDS = st.integers(0, 1 << 62)
#: As one line, which is how details are written.
DETAILS = st.text(st.characters(exclude_categories=["C", "Z"]), max_size=40)


def put(file: Path, rows: Iterable[tuple[str, ...]]) -> None:
    with file.open("w", newline="") as output:
        csv.writer(output, lineterminator="\n").writerows(rows)


@st.composite
def probes(draw: st.DrawFn) -> list[ProbeRecord]:
    one = st.builds(
        ProbeRecord,
        number=st.just(0),
        sent_ns=NANOSECONDS,
        answered_ns=NANOSECONDS,
        ok=st.booleans(),
        status=st.none() | st.integers(100, 599),
        detail=DETAILS,
    )
    found = sorted(draw(st.lists(one, max_size=20)), key=lambda probe: probe.sent_ns)
    return [
        ProbeRecord(number, probe.sent_ns, probe.answered_ns, probe.ok, probe.status, probe.detail)
        for number, probe in enumerate(found)
    ]


@given(found=probes(), cut=st.integers(0, 4000))
def test_requests_come_back_but_for_a_line_cut_short(found: list[ProbeRecord], cut: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = folder / PROBES_FILE
        put(file, [PROBE_COLUMNS, *map(probe_row, found)])
        assert read_probes(folder) == found
        whole = file.read_bytes()
        kept = whole[: max(cut, whole.index(b"\n") + 1)]
        file.write_bytes(kept)
        assert read_probes(folder) == found[: kept.count(b"\n") - 1]


def test_of_a_write_the_last_that_is_known_counts(tmp_path: Path) -> None:
    sent = [WriteRecord(n, f"f-{n}", "aa", 10 * n, "in_flight") for n in range(4)]
    later = [
        WriteRecord(1, "f-1", "aa", 10, "acknowledged", 15),
        WriteRecord(0, "f-0", "aa", 0, "failed", 20, "503 the database is gone"),
        WriteRecord(3, "f-3", "aa", 30, "in_flight", 1030, "no answer in 1 s"),
    ]
    put(tmp_path / WRITES_FILE, [WRITE_COLUMNS, *map(write_row, sent), *map(write_row, later)])
    found = read_writes(tmp_path)
    assert found == [later[1], later[0], sent[2], later[2]]
    assert [one.acknowledged_ns for one in found] == [None, 15, None, None]


def test_a_detail_of_several_lines_is_one(tmp_path: Path) -> None:
    put(
        tmp_path / PROBES_FILE, [PROBE_COLUMNS, probe_row(ProbeRecord(0, 1, 2, False, None, 'a\n"b",\r\n c'))]
    )
    assert read_probes(tmp_path)[0].detail == 'a "b", c'


PROBE = ("0", "1", "2", "1", "200", "")
WRITE = ("0", "f-0", "aa", "1", "acknowledged", "2", "")


@pytest.mark.parametrize(
    ("file", "rows", "message"),
    [
        (PROBES_FILE, [("number", "sent")], "begins with ['number', 'sent'], expected"),
        (PROBES_FILE, [], "begins with [], expected"),
        (PROBES_FILE, [PROBE_COLUMNS, PROBE[:-1]], "line 2 of probes.csv has 5 columns, expected 6"),
        (PROBES_FILE, [PROBE_COLUMNS, PROBE, ("x", *PROBE[1:])], "line 3 of probes.csv is no request"),
        (PROBES_FILE, [PROBE_COLUMNS, (*PROBE[:3], "yes", *PROBE[4:])], "line 2 of probes.csv is no request"),
        (
            WRITES_FILE,
            [WRITE_COLUMNS, (*WRITE[:4], "stored", *WRITE[5:])],
            "line 2 of writes.csv is no write",
        ),
        (WRITES_FILE, [WRITE_COLUMNS, (*WRITE[:5], "", "")], "acknowledged and does not say when"),
        (
            WRITES_FILE,
            [WRITE_COLUMNS, WRITE, (*WRITE[:4], "failed", "3", "")],
            "line 3 of writes.csv contradicts an earlier line about f-0",
        ),
    ],
)
def test_a_broken_ledger_is_refused(
    tmp_path: Path, file: str, rows: list[tuple[str, ...]], message: str
) -> None:
    put(tmp_path / file, rows)
    with pytest.raises(LedgerError) as raised:
        (read_probes if file == PROBES_FILE else read_writes)(tmp_path)
    assert message in str(raised.value)


def test_no_ledger_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match=r"the ledger writes\.csv cannot be read"):
        read_writes(tmp_path)
