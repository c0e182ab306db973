"""The watcher of packages: an event for a new version, none for what a run has looked at."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from airflow._shared.module_loading import import_string

from fastvlm_ops.core.config import load_coreml
from fastvlm_ops.core.coreml.watching import packages_signature
from fastvlm_ops.sensors.coreml import watched_packages
from fastvlm_ops.triggers.coreml import ModelChangeTrigger
from fastvlm_ops.triggers.watching import SIGNATURE_KEY
from tests.airflow_home import ROOT
from tests.airflow_kit import Kit


class Store:
    """What the trigger has of the asset's state store."""

    def __init__(self, signature: str | None) -> None:
        self.signature = signature

    async def aget(self, key: str) -> str | None:
        assert key == SIGNATURE_KEY
        return self.signature


@pytest.fixture
def package(kit: Kit) -> Path:
    return put(kit, 1)


def put(kit: Kit, version: int) -> Path:
    folder = kit.folder / "models" / f"FastVLMVision-v{version}.mlpackage"
    (folder / "Data").mkdir(parents=True)
    (folder / "Manifest.json").write_text("{}")
    return folder


def signature(kit: Kit) -> str:
    return packages_signature(load_coreml(ROOT / "include"), kit.folder)


def events(store: Store, change: object = None) -> list[dict[str, str]]:
    """What is told within a while, in the middle of which something may change."""

    async def both() -> list[dict[str, str]]:
        trigger = ModelChangeTrigger(poll_seconds=0.02, quiet_seconds=0.1)
        trigger.asset_state_store = store
        told: list[dict[str, str]] = []

        async def watch() -> None:
            async for event in trigger.run():
                told.append(event.payload)

        task = asyncio.create_task(watch())
        await asyncio.sleep(0.5)
        if callable(change):
            change()
            await asyncio.sleep(0.7)
        task.cancel()
        return told

    return asyncio.run(both())


def test_what_was_looked_at_starts_nothing(kit: Kit, package: Path) -> None:
    assert events(Store(signature(kit))) == []


def test_a_new_version_is_told_once(kit: Kit, package: Path) -> None:
    store = Store(signature(kit))
    told = events(store, lambda: put(kit, 2))
    assert told == [{"signature": signature(kit)}]


def test_what_came_while_nobody_watched_is_told(kit: Kit, package: Path) -> None:
    assert len(events(Store("older"))) == 1


def test_a_name_that_cannot_be_a_version_is_a_change_too(kit: Kit, package: Path) -> None:
    store = Store(signature(kit))
    odd = kit.folder / "models" / "FastVLMVision-v2 (copy).mlpackage"
    (told,) = events(store, odd.mkdir)
    assert told["signature"].startswith("unreadable: ")
    assert "cannot be a version" in told["signature"]


def test_it_is_what_it_serialises_to() -> None:
    classpath, arguments = ModelChangeTrigger(poll_seconds=1).serialize()
    assert import_string(classpath)(**arguments).serialize() == (classpath, arguments)


def test_the_asset_keeps_its_name_when_nobody_can_watch() -> None:
    watched, unwatched = watched_packages(), watched_packages(watched=False)
    assert (watched.name, watched.uri) == (unwatched.name, unwatched.uri)
    assert [type(watcher.trigger) for watcher in watched.watchers] == [ModelChangeTrigger]
    assert unwatched.watchers == []
