"""The watcher of a component: one event for each burst of changes, none without, none lost."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from airflow._shared.module_loading import import_string

from fastvlm_ops.core.backup import FolderSource
from fastvlm_ops.core.backup.compare import quick_signature
from fastvlm_ops.sensors.backup import watched_component
from fastvlm_ops.triggers.backup import ComponentChangeTrigger
from fastvlm_ops.triggers.watching import SIGNATURE_KEY
from tests.airflow_kit import Kit

POLL_SECONDS = 0.02
QUIET_SECONDS = 0.15


class Store:
    """What the trigger has of the asset's state store."""

    def __init__(self, signature: str | None = None) -> None:
        self.signature = signature
        self.reads = 0

    async def aget(self, key: str) -> str | None:
        assert key == SIGNATURE_KEY
        self.reads += 1
        return self.signature


class Watch:
    """A trigger at work, and what it has fired."""

    def __init__(self, store: Store, remind_seconds: float) -> None:
        self.store = store
        self.trigger = ComponentChangeTrigger("configuration", POLL_SECONDS, QUIET_SECONDS, remind_seconds)
        self.trigger.asset_state_store = store
        self.payloads: list[dict[str, Any]] = []

    async def watch(self) -> None:
        async for event in self.trigger.run():
            self.payloads.append(event.payload)

    async def settle(self) -> None:
        await asyncio.sleep(QUIET_SECONDS * 4)


def watching(
    steps: Callable[[Watch], AsyncIterator[None] | Any], store: Store, remind_seconds: float = 900
) -> Watch:
    """Run a trigger beside what a test does meanwhile."""

    async def both() -> Watch:
        watch = Watch(store, remind_seconds)
        task = asyncio.create_task(watch.watch())
        await watch.settle()
        await steps(watch)
        task.cancel()
        return watch

    return asyncio.run(both())


@pytest.fixture
def configuration(kit: Kit) -> Path:
    return kit.folder / "configuration"


def signature(folder: Path) -> str:
    return quick_signature(FolderSource(folder))


def test_fires_once_for_a_burst_and_tells_the_settled_state(configuration: Path) -> None:
    async def edit(watch: Watch) -> None:
        for number in range(8):
            (configuration / f"{number}.yaml").write_text("a")
            await asyncio.sleep(QUIET_SECONDS / 3)
        assert watch.payloads == [], "not before it stands still"
        await watch.settle()

    watch = watching(edit, Store(signature(configuration)))
    assert watch.payloads == [{"component": "configuration", "signature": signature(configuration)}]


def test_fires_for_each_of_two_changes_apart(configuration: Path) -> None:
    async def edit(watch: Watch) -> None:
        for port in (1, 2):
            (configuration / "service.yaml").write_text(f"port: {port}\n")
            await watch.settle()

    assert len(watching(edit, Store(signature(configuration))).payloads) == 2


def test_does_not_fire_without_a_change_and_hardly_asks(configuration: Path) -> None:
    async def wait(watch: Watch) -> None:
        await watch.settle()

    watch = watching(wait, Store(signature(configuration)))
    assert watch.payloads == []
    assert watch.store.reads == 1, "once when it starts: the store is in Airflow's database"


def test_fires_for_a_change_that_was_made_before_it_started(configuration: Path) -> None:
    recorded = signature(configuration)
    (configuration / "service.yaml").write_text("port: 9000\n")

    async def wait(watch: Watch) -> None:
        await watch.settle()

    assert len(watching(wait, Store(recorded)).payloads) == 1


def test_does_not_fire_for_what_a_run_has_recorded_meanwhile(configuration: Path) -> None:
    async def edit(watch: Watch) -> None:
        (configuration / "service.yaml").write_text("port: 9000\n")
        watch.store.signature = signature(configuration)
        await watch.settle()

    assert watching(edit, Store(signature(configuration))).payloads == []


def test_reminds_of_a_change_that_no_run_has_recorded(configuration: Path) -> None:
    async def wait(watch: Watch) -> None:
        await asyncio.sleep(0.5)
        assert len(watch.payloads) >= 3
        watch.store.signature = signature(configuration)
        await asyncio.sleep(0.2)
        told = len(watch.payloads)
        await asyncio.sleep(0.5)
        assert len(watch.payloads) == told

    watching(wait, Store("older"), remind_seconds=0.1)


def test_a_folder_that_vanishes_is_a_change_of_which_it_reminds_nobody(configuration: Path) -> None:
    async def remove(watch: Watch) -> None:
        configuration.rename(configuration.with_name("elsewhere"))
        await watch.settle()
        assert len(watch.payloads) == 1
        assert "does not exist" in watch.payloads[0]["signature"]
        await watch.settle()
        assert len(watch.payloads) == 1
        configuration.with_name("elsewhere").rename(configuration)
        await watch.settle()

    watch = watching(remove, Store(signature(configuration)), remind_seconds=0.1)
    assert len(watch.payloads) == 1, "back as it was"


def test_a_broken_definition_is_said_once_and_survived(
    configuration: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(signature(configuration))
    include = os.environ["AIRFLOW__FASTVLM_OPS__INCLUDE_DIR"]

    async def edit(watch: Watch) -> None:
        monkeypatch.setenv("AIRFLOW__FASTVLM_OPS__INCLUDE_DIR", str(tmp_path))
        await watch.settle()
        monkeypatch.setenv("AIRFLOW__FASTVLM_OPS__INCLUDE_DIR", include)
        (configuration / "service.yaml").write_text("port: 9000\n")
        await watch.settle()

    assert len(watching(edit, store).payloads) == 1
    said = [line for line in capsys.readouterr().out.splitlines() if "cannot be watched" in line]
    assert len(said) == 1
    assert "components.yaml: does not exist" in said[0]


def test_it_is_what_it_serialises_to() -> None:
    trigger = ComponentChangeTrigger("configuration", poll_seconds=1)
    classpath, arguments = trigger.serialize()
    again = import_string(classpath)(**arguments)
    assert again.serialize() == (classpath, arguments)


def test_the_asset_keeps_its_name_when_nobody_can_watch() -> None:
    watched, unwatched = watched_component("configuration"), watched_component(None)
    assert (watched.name, watched.uri) == (unwatched.name, unwatched.uri)
    assert [type(watcher.trigger) for watcher in watched.watchers] == [ComponentChangeTrigger]
    assert unwatched.watchers == []
