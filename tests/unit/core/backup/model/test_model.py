"""No interleaving of commits and collections loses a chunk; each rule that is dropped loses one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.core.backup.model.explorer import explore
from tests.unit.core.backup.model.protocol import (
    Actor,
    Collector,
    Entry,
    Once,
    Pack,
    Reader,
    Rules,
    Snapshot,
    World,
    Writer,
    fresh,
)

X, Y = frozenset({"x"}), frozenset({"y"})
FORGET, CHECKPOINT = Once("retention", what="old"), Once("checkpoint")
COLLECT, COLLECT_TOO = Collector("collector"), Collector("other collector")


def world(*actors: Actor, old: frozenset[str] = X, packs: tuple[Pack, ...] = (Pack("p", X),)) -> World:
    """A repository with the snapshot ``old``, and who works on it."""
    return World((("snapshot", Snapshot("old", old)),), frozenset(packs), actors)


# A writer has uploaded `q`, and has not learnt that it arrived; a collector has condemned it, and sleeps.
ARRIVED = Pack("q", Y)
CONDEMNED: tuple[Entry, ...] = (("snapshot", Snapshot("old", X)), ("condemn", frozenset("q")))
UNSURE = Writer(
    "writer",
    at="claim",
    known=fresh(CONDEMNED, Rules()),
    chunks=Y,
    used=frozenset("q"),
    own=frozenset({ARRIVED}),
    resends=True,
    tries=0,
)
ASLEEP = Collector("collector", at="delete", known=fresh(CONDEMNED, Rules()), todo=frozenset("q"), seq=2)
FINISH = Collector("other collector", only_finishes=True)

WORLDS = {
    "two writers": world(
        Writer("writer", chunks=X), Writer("child", chunks=X, parent="old"), FORGET, COLLECT
    ),
    "two collectors": world(Writer("writer", chunks=X), FORGET, COLLECT, COLLECT_TOO),
    "a checkpoint": world(Writer("writer", chunks=X), FORGET, COLLECT, CHECKPOINT),
    "copies": world(Writer("writer", chunks=Y), Reader("reader"), COLLECT, packs=(Pack("p", X | Y),)),
    "two copy": world(COLLECT, COLLECT_TOO, packs=(Pack("p", X | Y),)),
    "a reader": world(
        Writer("writer", chunks=Y), Reader("reader"), COLLECT, CHECKPOINT, packs=(Pack("p", X | Y),)
    ),
    "two copies": world(Reader("reader"), COLLECT, COLLECT_TOO, packs=(Pack("p", X), Pack("q", X))),
    "an upload sent again": World(
        CONDEMNED,
        frozenset({Pack("p", X), ARRIVED}),
        (UNSURE, ASLEEP, FINISH, CHECKPOINT, Writer("late", chunks=Y, tries=0)),
    ),
}


@pytest.mark.parametrize("name", WORLDS)
def test_nothing_is_lost(name: str) -> None:
    outcome = explore(WORLDS[name], Rules())
    print(f"\n{name}: {outcome.states} states")
    assert outcome.loss is None, "\n".join((outcome.loss or "", *outcome.way))
    assert outcome.states > 100


@pytest.mark.parametrize(
    ("broken", "name"),
    [
        ("claims_are_conditional", "two writers"),
        ("names_are_new", "two collectors"),
        ("looks_again_after_412", "two writers"),
        ("lists_after_the_log", "a checkpoint"),
        ("remembers_condemned", "a checkpoint"),
        ("checks_the_parent", "two writers"),
        ("plans_again", "two writers"),
        ("condemns_before_it_deletes", "two writers"),
        ("condemns_what_it_finishes", "an upload sent again"),
    ],
)
def test_each_rule_is_needed(broken: str, name: str) -> None:
    outcome = explore(WORLDS[name], replace(Rules(), **{broken: False}))
    print(f"\nwithout {broken}: {outcome.loss} after {outcome.states} states", *outcome.way, sep="\n  ")
    assert outcome.loss is not None
