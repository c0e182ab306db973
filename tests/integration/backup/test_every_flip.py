"""Every byte of every object of a small repository, flipped: found by a full verify and by a restore."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fastvlm_ops.core.backup import (
    BackupError,
    FolderSource,
    Repository,
    S3Storage,
    create_snapshot,
    initialise_repository,
    keys,
    open_repository,
    publish_set,
    restore_snapshot,
    verify_repository,
)
from fastvlm_ops.core.backup.key_slots import rotate_epoch
from tests.frozen_storage import FrozenStorage
from tests.integration.backup.conftest import PASSPHRASE
from tests.integration.backup.test_round_trip import NOW
from tests.trees import describe

MODULES = ("commit_log", "index", "reading", "verify_packs")


class Inline(Executor):
    """Does at once what it is given: a thread costs more than a look into memory."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        pass

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **options: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(function(*arguments, **options))
        except BaseException as error:
            future.set_exception(error)
        return future


@pytest.fixture
def frozen(
    storage: S3Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[FrozenStorage, dict[str, dict[bytes, Any]]]:
    """Two snapshots and a set, in a few KB, and each snapshot's tree as it has to come back."""
    monkeypatch.setattr(keys, "SCRYPT", {"n": 2, "r": 1, "p": 1})
    repository = initialise_repository(storage, PASSPHRASE)
    keys.write_slot(storage, repository.repository_id, repository.ring, "another passphrase")
    rotate_epoch(repository)
    folder = tmp_path / "source"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "a.yaml").write_text("name: a\n" * 5)
    (folder / "weights.bin").write_bytes(random.Random(1).randbytes(700))
    (folder / "nothing.txt").touch()
    trees = {}
    for run_key in ("run-1", "run-2"):  # the first by who has opened it before the rotation
        if run_key == "run-2":
            repository = open_repository(storage, PASSPHRASE)
        source = FolderSource(folder)
        made = create_snapshot(repository, source, component="models", kind="full", run_key=run_key)
        trees[made.snapshot_id] = describe(folder)
        (folder / "sub" / "a.yaml").write_text("name: b\n" * 4)
    publish_set(
        repository, set_id="set-2", kind="full", run_key="run-2", components=["models"], timestamp=NOW
    )
    for module in MODULES:
        monkeypatch.setattr(f"fastvlm_ops.core.backup.{module}.ThreadPoolExecutor", Inline)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    return FrozenStorage(storage), trees


@contextmanager
def flipped(storage: FrozenStorage, name: str, offset: int) -> Iterator[None]:
    """One bit of a byte, another one at each offset."""
    whole = storage.objects[name]
    changed = bytearray(whole)
    changed[offset] ^= 1 << offset % 8
    storage.objects[name] = bytes(changed)
    try:
        yield
    finally:
        storage.objects[name] = whole


def every_flip(storage: FrozenStorage, *prefixes: str) -> Iterator[tuple[str, int]]:
    """Flips one byte after the other while it is iterated over."""
    for name, data in list(storage.objects.items()):
        if name.startswith(prefixes):
            for offset in range(len(data)):
                with flipped(storage, name, offset):
                    yield name, offset


def test_a_full_verify_finds_every_flip(
    frozen: tuple[FrozenStorage, dict[str, dict[bytes, Any]]],
) -> None:
    """No exceptions: there is no byte that carries nothing."""
    storage, trees = frozen
    opened = open_repository(storage, PASSPHRASE)
    sizes = {name: len(data) for name, data in storage.objects.items()}
    tried, missed = 0, []
    for name, offset in every_flip(storage, ""):
        result = verify_repository(Repository(storage, opened.ring, opened.config_line), level="full")
        tried += 1
        if result.ok or name not in {problem.object for problem in result.problems if problem.needed}:
            missed.append((name, offset))
    assert missed == []
    assert tried == sum(sizes.values())
    assert {name.split("/")[0] for name in sizes} == {
        "config.json",
        "index",
        "keys",
        "log",
        "packs",
        "snapshots",
    }
    assert verify_repository(opened, level="full").ok
    print(f"{tried} flips in {len(sizes)} objects of {len(trees)} snapshots: all found")


def test_no_flip_gets_past_opening_unnoticed(
    frozen: tuple[FrozenStorage, dict[str, dict[bytes, Any]]],
) -> None:
    """A damaged configuration is refused; of slots and epochs, one that is not needed may be damaged."""
    storage, _ = frozen
    opened = open_repository(storage, PASSPHRASE)
    for _name, _offset in every_flip(storage, "config.json"):
        with pytest.raises(BackupError):
            open_repository(storage, PASSPHRASE)
    for _name, _offset in every_flip(storage, "keys/"):
        try:
            ring = open_repository(storage, PASSPHRASE).ring
        except BackupError:
            continue
        if ring != opened.ring:
            assert (sorted(ring.epochs), sorted(ring.missing)) == ([1], [2])
            with pytest.raises(BackupError):
                ring.require_newest()


def test_a_restore_is_right_or_fails_naming_what_is_damaged(
    frozen: tuple[FrozenStorage, dict[str, dict[bytes, Any]]], tmp_path: Path
) -> None:
    storage, trees = frozen
    opened = open_repository(storage, PASSPHRASE)
    target = tmp_path / "target"
    outcomes = {"restored": 0, "refused": 0}
    for name, offset in every_flip(storage, "index/", "log/", "packs/", "snapshots/"):
        for snapshot_id, tree in trees.items():
            repository = Repository(storage, opened.ring, opened.config_line)
            problem = outcome_of(repository, snapshot_id, target)
            outcomes["restored" if problem is None else "refused"] += 1
            if problem is None:
                assert describe(target) == tree
            else:
                named = (name, *(os.fsdecode(path) for path in tree.keys() - {b"."}))
                assert any(each in problem for each in named), (name, offset, problem)
                assert_nothing_wrong(target, tree)
            shutil.rmtree(target, ignore_errors=True)
            (tmp_path / ".target.fastvlm-restore").unlink(missing_ok=True)
    assert min(outcomes.values()) > 1000
    print(outcomes)


def outcome_of(repository: Repository, snapshot_id: str, target: Path) -> str | None:
    try:
        restore_snapshot(repository, snapshot_id, target)
    except BackupError as error:
        return str(error)
    return None


def assert_nothing_wrong(target: Path, tree: dict[bytes, Any]) -> None:
    """What bears its final name has the contents that were backed up."""
    for path, about in (describe(target) if target.exists() else {}).items():
        if "sha256" in about:
            assert about["sha256"] == tree[path]["sha256"], path
