"""Figures, times and names as people read them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from fastvlm_ops.ui import formats

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "unknown"),
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1024**2 - 1, "1.0 MiB"),
        (150 * 1024**2, "150 MiB"),
        (5 * 1024**3 // 2, "2.5 GiB"),
        (1024**7 * 3, "3072 EiB"),
    ],
)
def test_sizes(value: int | None, text: str) -> None:
    assert formats.size(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "unknown"),
        (0, "0.0 s"),
        (0.02, "< 0.1 s"),
        (4.26, "4.3 s"),
        (59.6, "1 min"),
        (3600, "1 h"),
        (7265, "2 h 1 min"),
        (timedelta(hours=26), "1 d 2 h"),
        (86400 + 59, "1 d"),
        (-90, "-1 min 30 s"),
    ],
)
def test_durations(value: float | timedelta | None, text: str) -> None:
    assert formats.duration(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(5, "just now"), (61, "1 min ago"), (7200, "2 h ago"), (86400 * 40, "40 d ago"), (-120, "in 2 min")],
)
def test_ages(seconds: int, text: str) -> None:
    assert formats.ago(NOW - timedelta(seconds=seconds), NOW) == text


def test_times_are_in_utc() -> None:
    there = NOW.astimezone(datetime.strptime("+0530", "%z").tzinfo)
    assert formats.moment(there) == "2026-11-24 12:00 UTC"
    assert formats.moment(None) == formats.ago(None, NOW) == "unknown"


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (None, "%", "unknown"),
        (float("nan"), "", "unknown"),
        (0, "%", "0 %"),
        (0.04217, "%", "0.0422 %"),
        (42.68, "%", "42.7 %"),
        (40.0, "%", "40 %"),
        (-3.5, "", "-3.5"),
        (99.99, "", "100"),
        (100.4, "/s", "100/s"),
        (12_345.6, "/s", "12\u202f346/s"),
        (1e-7, "", "1.00e-07"),
        (2.5e13, "", "2.50e+13"),
    ],
)
def test_amounts(value: float | None, unit: str, text: str) -> None:
    assert formats.amount(value, unit) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "unknown"),
        (float("nan"), "unknown"),
        (0, "0 %"),
        (0.004, "< 1 %"),
        (0.333, "33 %"),
        (0.996, "> 99 %"),
        (1.0, "100 %"),
        (1.84, "184 %"),
        (True, "100 %"),
    ],
)
def test_shares(value: float | None, text: str) -> None:
    assert formats.share(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "unknown"),
        (float("inf"), "unknown"),
        (0.0, "±0.0 %"),
        (-0.0004, "±0.0 %"),
        (0.0516, "+5.2 %"),
        (-0.08, "\u22128.0 %"),
        (0.9996, "+100 %"),
        (24.5, "+2\u202f450 %"),
    ],
)
def test_changes(value: float | None, text: str) -> None:
    assert formats.change(value) == text


def test_intervals_of_changes() -> None:
    assert formats.changes(-0.004, 0.008) == "\u22120.4 to +0.8 %"
    assert formats.changes(None, 0.1) == formats.changes(0.1, None) == ""


def test_days() -> None:
    assert formats.day(NOW.date()) == "2026-11-24"
    assert formats.day(None) == "unknown"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ordinary ü 漢 é.txt", "ordinary ü 漢 é.txt"),
        (b"caf\xc3\xa9", "café"),
        (b"\xff\x80", "\\xff\\x80"),
        ("a\nb\tc\x1b[31m", "a\\nb\\tc\\x1b[31m"),
        ("\u202egpj.exe", "\\u202egpj.exe"),
        ("zero\u200bwidth\u2066", "zero\\u200bwidth\\u2066"),
        ("para\u2029graph", "para\\u2029graph"),
        ("\ud800", "\\ud800"),
    ],
)
def test_nothing_in_a_name_is_hidden(name: str | bytes, text: str) -> None:
    assert formats.name(name) == text
