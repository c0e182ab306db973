"""How backups are pruned and locked, as ``components.yaml`` says it."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import pytest

from fastvlm_ops.core.config import Components, DefinitionError, load_components

HEAD = "version: 1\ncomponents:\n  - {name: a, kind: files, path: x}\n"
SHIPPED = Path(__file__).parents[4] / "include" / "components.yaml"


def load(folder: Path, text: str) -> Components:
    (folder / "components.yaml").write_text(text)
    return load_components(folder)


def test_nothing_is_removed_or_locked_unless_the_file_says_so(tmp_path: Path) -> None:
    components = load(tmp_path, HEAD)
    assert components.object_lock is None
    rules = components.pruning
    assert (rules.enabled, rules.max_share) == (False, 0.5)
    assert (rules.keep_unpublished, rules.keep_unreferenced) == (timedelta(days=7), timedelta(days=3))
    assert load_components(SHIPPED.parent).pruning == rules, "the shipped file shows what holds anyhow"


def test_reads_all_of_it(tmp_path: Path) -> None:
    text = "pruning: {enabled: true, max_share: 1, keep_unpublished_days: 1.5, copy_limit_gib: 0.5}\n"
    components = load(tmp_path, f"{HEAD}{text}object_lock: {{mode: compliance, days: 30}}\n")
    assert (components.pruning.enabled, components.pruning.max_share) == (True, 1)
    assert components.pruning.keep_unpublished == timedelta(days=1, hours=12)
    assert components.pruning.copy_limit_bytes == 1 << 29
    assert components.object_lock is not None
    assert (components.object_lock.mode, components.object_lock.days) == ("compliance", 30)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pruning: {max_share: 0}", "pruning.max_share: 0 is not allowed"),
        ("pruning: {max_share: 1.1}", "pruning.max_share: 1.1 is not allowed"),
        ("pruning: {max_share: .nan}", "pruning.max_share: "),
        ("pruning: {enabled: yes please}", "pruning.enabled: 'yes please' is not true or false"),
        ("pruning: {keep_unpublished_days: 0.5}", "pruning.keep_unpublished_days: 0.5 is not allowed"),
        ("pruning: {keep_unreferenced_days: -1}", "pruning.keep_unreferenced_days: -1 is not allowed"),
        ("pruning: {max_wast: 1}", "pruning.max_wast: is not a known key"),
        ("pruning: {copy_limit_gib: -1}", "pruning.copy_limit_gib: -1 is not allowed"),
        ("object_lock: {days: 3}", "object_lock.mode: is missing"),
        ("object_lock: {mode: governance}", "object_lock.days: is missing"),
        ("object_lock: {mode: GOVERNANCE, days: 3}", "object_lock.mode: 'GOVERNANCE' is not"),
        ("object_lock: {mode: governance, days: 0}", "object_lock.days: 0 is not allowed"),
        ("object_lock: {mode: governance, days: 1.5}", "object_lock.days: "),
    ],
)
def test_refuses_what_would_remove_or_lock_otherwise_than_meant(
    text: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(DefinitionError, match=re.escape(message)):
        load(tmp_path, f"{HEAD}{text}\n")


def test_the_example_in_the_shipped_file_is_good(tmp_path: Path) -> None:
    text = re.sub(r"^# (?=object_lock:|  mode:|  days:)", "", SHIPPED.read_text(), flags=re.M)
    lock = load(tmp_path, text).object_lock
    assert lock is not None
    assert (lock.mode, lock.days) == ("governance", 30)
