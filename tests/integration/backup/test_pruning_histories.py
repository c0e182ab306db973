"""Whatever is backed up, forgotten and collected, in whatever order: what counts comes back."""

from __future__ import annotations

import contextlib
import random
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastvlm_ops.core.backup import (
    Repository,
    S3Storage,
    StorageError,
    initialise_repository,
    open_repository,
    verify_repository,
)
from fastvlm_ops.core.backup.collecting import plan_collection
from tests.integration.backup.conftest import PASSPHRASE
from tests.integration.backup.pruning import (
    AT_ONCE,
    back_up,
    forget_snapshots,
    gather,
    require_restores,
    unfinished,
)
from tests.trees import describe

pytestmark = pytest.mark.slow

STEPS = ("change", "back up", "back up", "full", "forget", "forget", "collect", "stopped", "reopen")


class StoppedError(StorageError):
    """As when the endpoint does not answer any more."""


class History:
    """A repository, two folders that change, and what must come back."""

    def __init__(self, storage: S3Storage, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.storage = S3Storage(storage.client, storage.bucket, work.name)
        self.repository: Repository = initialise_repository(self.storage, PASSPHRASE)
        self._work = work
        self._patch = monkeypatch
        self._count = 0
        self.expected: dict[str, dict[bytes, Any]] = {}
        for component in ("models", "data"):
            (work / component).mkdir()
            (work / component / "kept").write_text("always there")

    def do(self, step: str, seed: int) -> None:
        self._count += 1
        rng = random.Random(seed)
        component = rng.choice(("models", "data"))
        tree = self._work / component
        if step == "change":
            path = tree / rng.choice("abcd")
            path.unlink(missing_ok=True)
            path.write_bytes(rng.randbytes(rng.choice((0, 700, 5_000, 5_000, 90_000))))
        elif step in ("back up", "full"):
            kind = "full" if step == "full" else "incremental"
            made = back_up(self.repository, tree, f"run-{self._count}", kind, component)
            assert made.warnings == ()
            self.expected[made.snapshot_id] = describe(tree)
        elif step == "forget" and self.expected:
            gone = rng.choice(list(self.expected))
            forget_snapshots(self.repository, gone)
            del self.expected[gone]
        elif step == "collect":
            gather(self.repository, f"run-{self._count}", max_waste=rng.choice((0.0, 0.3, 0.9)))
        elif step == "stopped":
            self._collect_until(rng.randrange(4))
        elif step == "reopen":
            self.repository = open_repository(self.storage, PASSPHRASE, chunks=rng.random() < 0.5)

    def _collect_until(self, removed: int) -> None:
        """A collection that ends when it has removed so many objects."""
        remove, left = self.repository.storage.remove, iter(range(removed))

        def stop(name: str) -> Any:
            if next(left, None) is None:
                raise StoppedError
            return remove(name)

        with self._patch.context() as patch:
            patch.setattr(self.repository.storage, "remove", stop)
            with contextlib.suppress(StoppedError):
                gather(self.repository, f"run-{self._count}")


@settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 999)), min_size=6, max_size=22))
def test_what_counts_comes_back(storage: S3Storage, tmp_path: Path, steps: list[tuple[str, int]]) -> None:
    work = Path(tempfile.mkdtemp(dir=tmp_path))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fastvlm_ops.core.backup.packs.PACK_BYTES", 64 << 10)
        patch.setattr("fastvlm_ops.core.backup.commit_log.CHECKPOINT_EVERY", 7)
        patch.setattr("fastvlm_ops.core.backup.verify_log.CHECKPOINT_EVERY", 7)
        history = History(storage, work, patch)
        for step, seed in steps:
            history.do(step, seed)
        require_restores(history.repository, history.expected, work / "target", "as it is")
        for number in range(3):  # the last removes the segment that the one before it has superseded
            opened = open_repository(history.storage, PASSPHRASE)
            gather(opened, f"last-{number}")
            assert unfinished(opened) == []
        require_restores(opened, history.expected, work / "target", "after the last collection")
        assert plan_collection(opened, **AT_ONCE).does_nothing
        found = verify_repository(opened, level="full")
        assert (found.ok, found.problems) == (True, ())
    shutil.rmtree(work)
