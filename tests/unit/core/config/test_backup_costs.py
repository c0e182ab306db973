"""Sections replica, storage_classes and prices of components.yaml: what they accept, and what they refuse."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from fastvlm_ops.core.config import Components, DefinitionError, load_components
from tests.conftest import ROOT

BEGIN = "version: 1\ncomponents:\n  - {name: models, kind: files, path: models}\n"


def load(folder: Path, text: str) -> Components:
    (folder / "components.yaml").write_text(BEGIN + text, encoding="utf-8")
    return load_components(folder)


def test_without_them_nothing_is_pretended(tmp_path: Path) -> None:
    found = load(tmp_path, "")
    assert (found.prices, found.storage_classes) == (None, None)
    assert found.replica.connection == "fastvlm_s3_replica"
    assert found.replica.mirror_removals is False


def test_what_is_shipped_as_an_example_is_valid(tmp_path: Path) -> None:
    lines = (ROOT / "include" / "components.yaml").read_text().splitlines()
    examples = "\n".join(line[2:] for line in lines[lines.index("# replica:") :] if line.startswith("# "))
    starts = ("replica:", "storage_classes:", "prices:")
    kept, inside = [], False
    for line in examples.splitlines():
        inside = line in starts or (inside and line.startswith("  "))
        kept += [line] if inside else []
    found = load(tmp_path, "\n".join(kept))
    assert found.storage_classes is not None
    assert found.prices is not None
    assert found.prices.as_of == date(2026, 1, 15)
    assert found.replica.shares == 14


def test_prices_that_are_not_said_are_unknown(tmp_path: Path) -> None:
    prices = load(tmp_path, "prices: {currency: EUR, as_of: 2026-11-30, gb_month: {STANDARD: 1}}\n").prices
    assert prices is not None
    assert set(prices.requests_per_1000.by_verb().values()) == {None}
    assert prices.out_gb is None


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ("[{after_days: 90, class: GLACIER}]", "has to be thawed first, so that a restore would wait"),
        ("[{after_days: 90, class: DEEP_ARCHIVE}]", "has to be thawed first"),
        ("[{after_days: 90, class: STANDARD}]", "is not a class to move to"),
        ("[{after_days: 29, class: STANDARD_IA}]", "S3 moves nothing to STANDARD_IA before 30 days"),
        ("[{after_days: 29, class: ONEZONE_IA}]", "S3 moves nothing to ONEZONE_IA before 30 days"),
        ("[]", "the list is empty"),
        (
            "[{after_days: 90, class: STANDARD_IA}, {after_days: 60, class: GLACIER_IR}]",
            "does not follow STANDARD_IA after 90",
        ),
        (
            "[{after_days: 30, class: GLACIER_IR}, {after_days: 60, class: STANDARD_IA}]",
            "S3 moves nothing from GLACIER_IR to STANDARD_IA",
        ),
    ],
    ids=["glacier", "deep", "standard", "young", "young one zone", "empty", "ages", "order"],
)
def test_classes_that_would_harm_or_that_s3_refuses(steps: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match=message) as caught:
        load(tmp_path, f"storage_classes:\n  packs: {steps}\n")
    assert "storage_classes.packs" in str(caught.value)


def test_classes_in_order_are_taken(tmp_path: Path) -> None:
    steps = "[{after_days: 0, class: INTELLIGENT_TIERING}, {after_days: 90, class: GLACIER_IR}]"
    found = load(tmp_path, f"storage_classes:\n  packs: {steps}\n").storage_classes
    assert found is not None
    assert [step.storage_class for step in found.packs] == ["INTELLIGENT_TIERING", "GLACIER_IR"]


@pytest.mark.parametrize(
    "text",
    [
        "replica: {connection: 'a b'}\n",
        "replica: {shares: 0}\n",
        "replica: {mirror: true}\n",
        "prices: {currency: EUR, as_of: 2026-11-30}\n",
        "prices: {currency: EUR, as_of: 2026-11-30, gb_month: {STANDARD: -1}}\n",
        "prices: {currency: EUR, as_of: 2026-11-30, gb_month: {GLACIER: 1}}\n",
        "prices: {currency: EUR, as_of: someday, gb_month: {STANDARD: 1}}\n",
    ],
    ids=["connection", "shares", "key", "no prices", "negative", "class", "day"],
)
def test_bad_input_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(DefinitionError):
        load(tmp_path, text)
