"""Drills for the pages to show: years of them that were made up, with their evidence in the bucket."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import insert

from fastvlm_ops.core.disaster_recovery.evidence import report_drill
from fastvlm_ops.core.store import Store, open_store
from fastvlm_ops.core.store.artefacts import ArtefactStore
from fastvlm_ops.core.store.tables import disaster_recovery as tables
from tests import drill_kit as kit
from tests.integration.ui.rig import BUCKET, Rig

NOW = datetime.now(UTC).replace(microsecond=0)
MONTHS = 11
HOSTILE = "<script>alert('x')</script>\u202e"
HOSTILE_RUN = f"manual__{HOSTILE}/é"
ODD = replace(
    kit.KILLED,
    scenario="once_upon_a_time",
    title=f"What no file has any more {HOSTILE}",
    reason=f"it was good {HOSTILE}",
    commands=(("simulate_failure", 0.0, f"kill -KILL {HOSTILE}"),),
)
RUNNING = replace(
    kit.HUNG,
    verdict=None,
    reason="",
    undone=None,
    steps={
        **kit.KILLED.steps,
        **dict.fromkeys(("restore_service", "validate_recovery", "undo_fault"), ("not run", ())),
    },
    time_to_live=3600.0,  # longer than the tests take: it must not become one that is left
)
DRY = replace(
    kit.PRIMARY,
    dry_run=True,
    verdict="INCONCLUSIVE",
    reason="a dry run: nothing was broken, and so nothing was proven",
)


def run_id(at: datetime) -> str:
    """The run id of a drill of these."""
    return f"scheduled__{at.isoformat()}"


def run_key(story: kit.Story, at: datetime | None = None) -> str:
    """The run key of the newest drill of a story."""
    return f"disaster_recovery_{story.scenario}/{run_id(at or when(story))}"


def when(story: kit.Story) -> datetime:
    """When the newest drill of a story was planned."""
    return NOW - timedelta(days=2, hours=kit.STORIES.index(story) if story in kit.STORIES else 12)


def add_drills(rig: Rig, *, stories: Sequence[kit.Story] = kit.STORIES) -> None:
    """A drill a month of every scenario, the newest as the stories tell, with its evidence."""
    with open_store(f"sqlite:///{rig.database}", migrate_first=True) as store:
        artefacts = ArtefactStore(store, rig.s3.client(), bucket=BUCKET)
        earlier = [row for story in stories if story is not kit.REFUSED for row in _earlier(rig, story)]
        with store.write() as connection:
            connection.execute(insert(tables.drills), earlier)
        for story in stories:
            _run(rig, store, artefacts, story, when(story))


def add_odd_drills(rig: Rig) -> None:
    """One that runs, a dry run, and one without a scenario file that has hostile names."""
    with open_store(f"sqlite:///{rig.database}", migrate_first=True) as store:
        artefacts = ArtefactStore(store, rig.s3.client(), bucket=BUCKET)
        _run(rig, store, artefacts, ODD, NOW - timedelta(days=90), HOSTILE_RUN)
        _run(rig, store, None, DRY, NOW - timedelta(hours=5))
        _run(rig, store, None, RUNNING, NOW - timedelta(seconds=40))


def add_left_fault(rig: Rig) -> str:
    """A drill whose fault nobody took back; its run key."""
    with open_store(f"sqlite:///{rig.database}") as store:
        return _run(rig, store, None, kit.LEFT, NOW - timedelta(hours=1))


def _earlier(rig: Rig, story: kit.Story) -> Iterator[dict[str, Any]]:
    """Rows of the drills before the newest: there are too many for a ledger of each."""
    chance = random.Random(story.scenario)
    for month in range(MONTHS, 0, -1):
        at = when(story) - timedelta(days=30 * month)
        plan = story.plan(at, rig.folder / "drills" / "gone", run_id(at))
        good = month != 7 or story not in (kit.PRIMARY, kit.MODELS)
        usual = story.rto or (story.served and min(story.served, 56.0)) or 0.02
        rto = round(usual * chance.uniform(0.55, 1.0), 2) if good else 72.0
        yield {
            "run_key": plan.run_key,
            "scenario": story.scenario,
            "environment": story.environment,
            "dry_run": False,
            "planned_at": at,
            "plan": plan.model_dump(mode="json"),
            "fault_at": at + timedelta(seconds=9) if story.fault else None,
            "finished_at": at + timedelta(seconds=60),
            "verdict": "PASS" if good else "FAIL",
            "reason": "every step passed" if good else "RTO 72.0 s is over the objective of 60 s",
            "rto_seconds": rto,
            "rto_objective_seconds": story.rto_objective,
            "rpo_seconds": story.rpo or 0.0,
            "rpo_objective_seconds": story.rpo_objective,
        }


def _run(
    rig: Rig,
    store: Store,
    artefacts: ArtefactStore | None,
    story: kit.Story,
    at: datetime,
    name: str | None = None,
) -> str:
    folder = rig.folder / "drills" / f"{story.scenario}-{at:%Y%m%d%H%M%S}"
    key, measures, fault_ns = kit.run(store, story, at, folder, run_id=name or run_id(at))
    if artefacts is not None:
        report_drill(store, artefacts, key, measures=measures, fault_ns=fault_ns)
    return key
