"""The tree that is backed up is the same in each round, and changes by as much as it says."""

from __future__ import annotations

import hashlib
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from benchmarks.backup_workload import QUICK, Workload

WEIGHTS = "Data/com.apple.CoreML/weights/weight.bin"


def digests(tree: Path) -> dict[str, str]:
    files = (path for path in tree.rglob("*") if path.is_file())
    return {str(path.relative_to(tree)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def workload(tmp_path_factory: pytest.TempPathFactory) -> Workload:
    made = Workload(tmp_path_factory.mktemp("workload"), QUICK)
    made.build()
    return made


def test_days_come_back_the_same(workload: Workload, tmp_path: Path) -> None:
    first = digests(workload.tree)
    workload.second_day()
    second = digests(workload.tree)
    workload.first_day()
    assert digests(workload.tree) == first
    workload.second_day()
    assert digests(workload.tree) == second
    other = Workload(tmp_path, QUICK)
    other.build()
    assert digests(other.tree) == first


def test_second_day_changes_what_it_says(workload: Workload) -> None:
    workload.first_day()
    first = digests(workload.tree)
    workload.second_day()
    second = digests(workload.tree)
    models = [name for name in second if name not in first and name.endswith("weight.bin")]
    assert len(models) == len(QUICK.weights_mib)
    configuration = [name for name in first.keys() & second.keys() if first[name] != second[name]]
    assert sum(name.startswith("configuration") for name in configuration) == QUICK.changed_files
    new = [name for name in second.keys() - first.keys() if name.startswith("configuration")]
    assert len(new) == len(first.keys() - second.keys()) == QUICK.changed_files // 4


def test_second_version_shares_most_of_the_weights(workload: Workload) -> None:
    workload.second_day()
    for number, weights_mib in enumerate(QUICK.weights_mib):
        models = workload.tree / "models"
        one = (models / f"fastvlm-{number}-v1.mlpackage" / WEIGHTS).read_bytes()
        two = (models / f"fastvlm-{number}-v2.mlpackage" / WEIGHTS).read_bytes()
        assert len(one) == weights_mib << 20
        assert len(two) - len(one) == 1_021 + 16_411 + 65_537
        block = 1024
        found = sum(one[start : start + block] in two for start in range(0, len(one), block))
        assert 0.93 < found * block / len(one) < 0.96


def test_one_row_in_a_hundred_is_updated(workload: Workload) -> None:
    rows = []
    for turn in (workload.first_day, workload.second_day):
        turn()
        with closing(sqlite3.connect(workload.tree / "database" / "operations.db")) as database:
            rows.append(database.execute("SELECT * FROM requests").fetchall())
    changed = sum(one != two for one, two in zip(*rows, strict=True))
    assert changed == len(rows[0]) // 100
