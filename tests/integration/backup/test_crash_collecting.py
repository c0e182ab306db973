"""A collection killed at every request loses nothing, and the next one finishes it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fastvlm_ops.core.backup import Repository, S3Storage
from fastvlm_ops.core.backup.collecting import plan_collection
from tests.integration.backup.crashes import Matrix, kind, on_copies, timed
from tests.integration.backup.pruning import (
    AT_ONCE,
    back_up,
    forget_snapshots,
    gather,
    names,
    require_restores,
    unfinished,
    write_files,
)
from tests.trees import describe

pytestmark = pytest.mark.slow

EAGER = {**AT_ONCE, "max_waste": 0.0}  # so that something is copied for sure


def make_history(repository: Repository, storage: S3Storage, tree: Path) -> dict[str, Any]:
    """Dead packs, some to be emptied, an orphan manifest, and a collection that somebody has not finished."""
    small = [(f"small-{number}", 20_000) for number in range(8)]
    write_files(tree, [("large", 700_000), *small, ("steady", 300_000)])
    forgotten = [back_up(repository, tree, "run-1", kind="full").snapshot_id]
    for number in range(6):
        (tree / f"small-{number}").unlink()
    expected = {back_up(repository, tree, "run-2").snapshot_id: describe(tree)}
    before = names(storage, "packs/")
    write_files(tree, [("large", 600_000)])
    forgotten.append(back_up(repository, tree, "run-3").snapshot_id)
    dead = sorted(names(storage, "packs/") - before)
    write_files(tree, [("large", 300_000)])
    expected[back_up(repository, tree, "run-4").snapshot_id] = describe(tree)
    forget_snapshots(repository, *forgotten)
    repository.log.append(
        "condemn", {"packs": dead[:2], "indexes": [], "manifests": [], "wal": [], "key": "k"}
    )
    storage.remove(dead[0])
    return expected


@pytest.mark.parametrize("at", ["writes", pytest.param("everything", marks=pytest.mark.slow)])
def test_collection_killed_at_every_request(
    matrix: Matrix,
    storage: S3Storage,
    open_again: Callable[[S3Storage], Repository],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    at: str,
) -> None:
    """What only reads leaves the bucket as the request before it, and a kill before a request is one after
    the request before it; the deletions of a kind differ little. The slow run has all of them.
    """
    # One segment a run, so that there is one that names what goes and what stays.
    monkeypatch.setattr("fastvlm_ops.core.backup.writing._PACKS_PER_SEGMENT", 16)
    expected = make_history(open_again(storage), storage, tmp_path / "source")
    before = names(storage, "")
    limits = {name: value for name, value in EAGER.items() if name != "keep_unreferenced"}
    begin = on_copies(storage, {"action": "collect", "run_key": "collect-1", "limits": limits})
    target = tmp_path / "target"
    with timed(matrix, "collection"):
        job, copy = begin()
        matrix.storage = copy
        requests = matrix.learn(job)
        require_restores(open_again(copy), expected, target, "undisturbed")
        whole = names(copy, "packs/")
        if at == "writes":
            matrix.points, matrix.answered = telling(matrix.points), (True,)
        for where, copy in matrix.each(begin):
            if names(copy, "") != before:
                require_restores(open_again(copy), expected, target, where)
            result = gather(open_again(copy), "collect-1", **EAGER)
            assert result.reused == (where == "after PutObject log number 4")
            gather(open_again(copy), "collect-2", **EAGER)
            assert unfinished(open_again(copy)) == [], where
            assert len(names(copy, "packs/")) == len(whole), where
            assert plan_collection(open_again(copy), **EAGER).does_nothing, where
            require_restores(open_again(copy), expected, target, where)
    kinds = Counter(map(kind, requests))
    assert kinds["DeleteObject packs"] >= 4
    assert kinds["PutObject log"] == 4, "twice condemned, twice swept"
    assert kinds["PutObject packs"] >= 1
    assert kinds["PutObject index"] >= 2
    assert kinds["DeleteObject snapshots"] == 2
    assert matrix.kills == len(matrix.answered) * len(matrix.points)


def telling(points: list[tuple[str, int]]) -> list[tuple[str, int]]:
    """All that are stored, and of each kind the first and the last that are deleted."""
    last = dict(points)
    return [
        (what, number)
        for what, number in points
        if what.startswith("Put") or (what.startswith("Delete") and number in (1, last[what]))
    ]
