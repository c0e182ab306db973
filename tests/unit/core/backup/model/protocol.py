"""Commit against collection, as a model small enough to look at every interleaving of it.

Each rule stands for a function of ``fastvlm_ops.core.backup``:

=================  =====================================================================================
``fold``           ``commit_log.LogState.fold``: snapshots, forget, condemn, swept, checkpoint
``fresh``          ``commit_log.CommitLog.refresh`` of a new reader, which begins at the newest checkpoint
``Writer``         ``create.create_snapshot``: read the log, list (``repository._list_in_order``), store
                   what is unknown (``writing.ChunkWriter``), claim (``create._claim``)
``Collector``      ``collecting.collect``: ``finish_others``, ``survey``, ``copy_live``, claim with
                   ``still_planned``, delete, ``swept``
``Reader``         ``restore.restore_snapshot``: read the log, list, find every chunk
``claim``          ``commit_log.CommitLog.append``: a conditional PUT; 412 means: read on, look again
=================  =====================================================================================

A step is one request, or several of which nothing else can see the middle. An actor may stop for ever, or
for any time, before each of its steps: so every pause and every crash is among the interleavings.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

Names = frozenset[str]
Step = tuple[str, "World"]
NOTHING: Names = frozenset()


@dataclass(frozen=True)
class Rules:
    """What the protocol rests on. Each that is switched off must be seen to lose data."""

    claims_are_conditional: bool = True
    names_are_new: bool = True  # a pack never has the name of another, equal or not (packs.encode_pack)
    looks_again_after_412: bool = True  # create._claim: still_valid
    lists_after_the_log: bool = True  # repository._list_in_order
    remembers_condemned: bool = True  # LogState.remembered
    checks_the_parent: bool = True  # create._claim: still_valid
    plans_again: bool = True  # collecting: still_planned
    condemns_before_it_deletes: bool = True
    condemns_what_it_finishes: bool = True  # collecting.finish_others, LogState._fold_swept


class Pack(NamedTuple):
    name: str
    chunks: frozenset[str]


class Condemned(NamedTuple):
    """``finished`` by another collector than the one that claimed it."""

    seq: int
    names: Names
    finished: bool = False


class Snapshot(NamedTuple):
    name: str
    chunks: frozenset[str]


Entry = tuple[Any, ...]


@dataclass(frozen=True)
class Knowledge:
    """What an actor has folded: the log up to ``seq``."""

    seq: int = 0
    snapshots: frozenset[Snapshot] = frozenset()
    condemned: frozenset[Condemned] = frozenset()
    remembered: Names = NOTHING

    @functools.cached_property
    def gone(self) -> Names:
        return self.remembered.union(*(entry.names for entry in self.condemned))

    @property
    def ids(self) -> Names:
        return frozenset(snapshot.name for snapshot in self.snapshots)


def fold(known: Knowledge, entry: Entry, rules: Rules) -> Knowledge:
    seq, (kind, *body) = known.seq + 1, entry
    known = replace(known, seq=seq)
    if kind == "snapshot":
        return replace(known, snapshots=known.snapshots | {body[0]})
    if kind == "forget":
        return replace(known, snapshots=frozenset(s for s in known.snapshots if s.name != body[0]))
    if kind == "condemn":
        remembered = known.remembered | body[0] if rules.remembers_condemned else NOTHING
        condemned = known.condemned | {Condemned(seq, body[0])}
        return replace(known, condemned=condemned, remembered=remembered)
    if kind == "swept":
        own, others = body
        kept = {entry for entry in known.condemned if entry.seq != own and entry.seq not in others}
        kept |= {entry._replace(finished=True) for entry in known.condemned if entry.seq in others}
        return replace(known, condemned=frozenset(kept))
    snapshots, condemned = body  # a checkpoint
    known = replace(known, snapshots=snapshots, condemned=condemned)
    return replace(known, remembered=known.gone if rules.remembers_condemned else NOTHING)


@functools.cache
def fold_all(known: Knowledge, log: tuple[Entry, ...], rules: Rules) -> Knowledge:
    for entry in log[known.seq :]:
        known = fold(known, entry, rules)
    return known


@functools.cache
def fresh(log: tuple[Entry, ...], rules: Rules) -> Knowledge:
    newest = max((seq for seq, entry in enumerate(log) if entry[0] == "checkpoint"), default=0)
    return fold_all(Knowledge(seq=newest), log, rules)


@dataclass(frozen=True)
class World:
    """The bucket, and where each actor stands. ``made`` counts the packs that were ever made."""

    log: tuple[Entry, ...]
    packs: frozenset[Pack]
    actors: tuple[Actor, ...]
    made: int = 0

    def with_actor(self, number: int, actor: Actor, **changed: Any) -> World:
        actors = (*self.actors[:number], actor, *self.actors[number + 1 :])
        return replace(self, actors=actors, **changed)

    def new_pack(self, chunks: frozenset[str], rules: Rules) -> Pack:
        """As made of these chunks; by the broken rule its name is that of its contents."""
        name = f"new-{self.made}" if rules.names_are_new else "-".join(sorted(chunks))
        return Pack(name, chunks)

    def lost(self, rules: Rules) -> str | None:
        """The invariant: what the log says exists can be restored by whoever begins to read now."""
        return _lost(self.log, self.packs, rules)


@functools.cache
def _lost(log: tuple[Entry, ...], packs: frozenset[Pack], rules: Rules) -> str | None:
    known = fresh(log, rules)
    there = {chunk for pack in packs if pack.name not in known.gone for chunk in pack.chunks}
    for snapshot in sorted(known.snapshots):
        if not snapshot.chunks <= there:
            return f"snapshot {snapshot.name} has lost {sorted(snapshot.chunks - there)}"
    return None


@dataclass(frozen=True)
class Actor:
    """Somebody at work: ``at`` is the step that comes next, ``done`` the end."""

    name: str
    at: str = "start"
    known: Knowledge = field(default_factory=Knowledge)
    listed: frozenset[Pack] = frozenset()

    def steps(self, world: World, number: int, rules: Rules) -> list[Step]:
        if self.at == "done":
            return []
        found: list[Step] = getattr(self, f"_{self.at}")(world, number, rules)
        return [(f"{self.name}: {what}", after) for what, after in found]

    def _start(self, world: World, number: int, rules: Rules) -> list[Step]:
        if rules.lists_after_the_log:
            return [("reads the log", world.with_actor(number, self.read(world, rules, "list")))]
        return [("lists", world.with_actor(number, replace(self, listed=world.packs, at="late_log")))]

    def _list(self, world: World, number: int, rules: Rules) -> list[Step]:
        return [("lists", world.with_actor(number, replace(self, listed=world.packs, at="work")))]

    def _late_log(self, world: World, number: int, rules: Rules) -> list[Step]:
        return [("reads the log", world.with_actor(number, self.read(world, rules, "work")))]

    def read(self, world: World, rules: Rules, then: str) -> Any:
        return replace(self, known=fresh(world.log, rules), at=then)

    def claim(self, world: World, number: int, entry: Entry, then: Actor, rules: Rules) -> list[Step]:
        """Take the next place of the log, or learn what has taken it."""
        if rules.claims_are_conditional and self.known.seq != len(world.log):
            known = fold_all(self.known, world.log, rules)
            return [("is refused, reads on", world.with_actor(number, replace(self, known=known)))]
        log = (*world.log, entry)
        then = replace(then, known=fold_all(self.known, log, rules))
        return [(f"claims {entry[0]}", world.with_actor(number, then, log=log))]


@dataclass(frozen=True)
class Once(Actor):
    """Claims one entry at the head of the log: ``forget``, or the ``checkpoint``."""

    what: str = ""

    def _start(self, world: World, number: int, rules: Rules) -> list[Step]:
        known = fold_all(Knowledge(), world.log, replace(rules, remembers_condemned=False))
        if self.what:
            entry: Entry = ("forget", self.what)
        else:
            entry = ("checkpoint", known.snapshots, known.condemned)
        done = replace(self, at="done")
        return [(f"claims {entry[0]}", world.with_actor(number, done, log=(*world.log, entry)))]


@dataclass(frozen=True)
class Reader(Actor):
    """Finds every chunk of every snapshot that it has read of, unless it was forgotten since."""

    def _work(self, world: World, number: int, rules: Rules) -> list[Step]:
        found = {chunk for pack in self.listed if pack.name not in self.known.gone for chunk in pack.chunks}
        still = fold_all(Knowledge(), world.log, rules).snapshots
        lost = [one.name for one in sorted(self.known.snapshots & still) if not one.chunks <= found]
        at = "lost" if lost else "done"
        return [("looks up all chunks", world.with_actor(number, replace(self, at=at)))]

    def _lost(self, world: World, number: int, rules: Rules) -> list[Step]:
        return []


@dataclass(frozen=True)
class Writer(Actor):
    """Stores chunks. With a ``parent`` that is there it takes them over unread, as an incremental does.

    ``resends``: the answer to an upload was lost, and the client sends it once more, whenever.
    """

    chunks: frozenset[str] = frozenset()
    parent: str = ""
    resends: bool = False
    used: Names = NOTHING
    own: frozenset[Pack] = frozenset()
    took_over: bool = False
    tries: int = 1

    def _work(self, world: World, number: int, rules: Rules) -> list[Step]:
        if self.parent in self.known.ids:
            step = replace(self, at="claim", took_over=True, used=NOTHING)
            return [("takes over", world.with_actor(number, step))]
        return [*self._reads_on(world, number, rules), *self._store(world, number, rules)]

    def _reads_on(self, world: World, number: int, rules: Rules) -> list[Step]:
        """More of the log, between its listing and its use of that."""
        if self.known.seq == len(world.log):
            return []
        known = fold_all(self.known, world.log, rules)
        return [("reads on", world.with_actor(number, replace(self, known=known)))]

    def _store(self, world: World, number: int, rules: Rules) -> list[Step]:
        usable = sorted(pack for pack in self.listed if pack.name not in self.known.gone)
        used, missing = set(), set()
        for chunk in sorted(self.chunks):
            place = next((pack for pack in usable if chunk in pack.chunks), None)
            if place is None:
                missing.add(chunk)
            else:
                used.add(place.name)
        step = replace(self, at="claim", took_over=False, used=frozenset(used), own=frozenset())
        if not missing:
            return [("needs nothing new", world.with_actor(number, step))]
        pack = world.new_pack(frozenset(missing), rules)
        step = replace(step, used=step.used | {pack.name}, own=frozenset({pack}))
        after = world.with_actor(number, step, packs=world.packs | {pack}, made=world.made + 1)
        return [(f"uploads {pack.name}", after)]

    def _claim(self, world: World, number: int, rules: Rules) -> list[Step]:
        steps: list[Step] = []
        if self.resends and self.own:
            sent = replace(self, resends=False)
            steps = [("sends its pack again", world.with_actor(number, sent, packs=world.packs | self.own))]
        gone = self.known.gone if rules.names_are_new else self.known.gone - {p.name for p in self.own}
        is_bad = rules.looks_again_after_412 and bool(self.used & gone)
        if self.took_over and rules.checks_the_parent:
            is_bad = is_bad or self.parent not in self.known.ids
        if is_bad:
            again = replace(self, at="list" if self.tries else "done", tries=self.tries - 1)
            return [*steps, ("begins again", world.with_actor(number, again))]
        entry = ("snapshot", Snapshot(self.name, self.chunks))
        return steps + self.claim(world, number, entry, replace(self, at="done"), rules)


@dataclass(frozen=True)
class Collector(Actor):
    """Finishes what others have condemned, then removes what no snapshot needs; or only the former."""

    only_finishes: bool = False
    todo: Names = NOTHING
    seq: int = 0
    finishes: frozenset[int] = frozenset()
    planned: Knowledge = field(default_factory=Knowledge)
    tries: int = 1

    def _start(self, world: World, number: int, rules: Rules) -> list[Step]:
        if not rules.lists_after_the_log:
            return super()._start(world, number, rules)
        return [("reads the log", world.with_actor(number, self.read(world, rules, "finish")))]

    def _finish(self, world: World, number: int, rules: Rules) -> list[Step]:
        open_entries = sorted(entry for entry in self.known.condemned if not entry.finished)
        if not open_entries:
            if self.only_finishes:
                return [("has nothing to finish", world.with_actor(number, replace(self, at="done")))]
            return replace(self, at="list")._list(world, number, rules)
        names = frozenset[str]().union(*(entry.names for entry in open_entries))
        finishes = frozenset(entry.seq for entry in open_entries)
        if not rules.condemns_what_it_finishes:
            entry = open_entries[0]
            step = replace(self, at="delete", todo=entry.names, seq=entry.seq, finishes=frozenset({0}))
            return [("takes over", world.with_actor(number, step))]
        seq = len(world.log) + 1
        step = replace(self, at="delete", todo=names, seq=seq, finishes=finishes)
        return self.claim(world, number, ("condemn", names), step, rules)

    def _work(self, world: World, number: int, rules: Rules) -> list[Step]:
        """Plan, and copy what is needed of packs that hold something else too."""
        needed = {chunk for snapshot in self.known.snapshots for chunk in snapshot.chunks}
        there = sorted(pack for pack in self.listed if pack.name not in self.known.gone)
        keeper: dict[str, Pack] = {}
        for pack in sorted(there, key=lambda pack: (-len(pack.chunks & needed) / len(pack.chunks), pack)):
            for chunk in sorted(pack.chunks & needed):
                keeper.setdefault(chunk, pack)
        wasteful = {pack for pack in keeper.values() if not pack.chunks <= needed}
        leaving = {pack.name for pack in self.listed if pack not in keeper.values() or pack in wasteful}
        copied = frozenset(chunk for chunk, pack in keeper.items() if pack in wasteful)
        if not leaving or not needed <= keeper.keys():  # else it refuses: something is lost already
            return [("has nothing to do", world.with_actor(number, replace(self, at="done")))]
        at = "claim" if rules.condemns_before_it_deletes else "delete"
        step = replace(self, at=at, todo=frozenset(leaving), planned=self.known, finishes=frozenset())
        if not copied:
            return [("plans", world.with_actor(number, step))]
        pack = world.new_pack(copied, rules)
        after = world.with_actor(number, step, packs=world.packs | {pack}, made=world.made + 1)
        return [(f"plans, copies into {pack.name}", after)]

    def _claim(self, world: World, number: int, rules: Rules) -> list[Step]:
        is_new = not self.known.ids <= self.planned.ids or not self.known.gone <= self.planned.gone
        if rules.plans_again and is_new:
            again = replace(self, at="list" if self.tries else "done", tries=self.tries - 1)
            return [("plans again", world.with_actor(number, again))]
        then = replace(self, at="delete", seq=len(world.log) + 1)
        if not rules.condemns_before_it_deletes:
            then = replace(then, at="sweep")
        return self.claim(world, number, ("condemn", self.todo), then, rules)

    def _delete(self, world: World, number: int, rules: Rules) -> list[Step]:
        if not self.todo:
            return replace(self, at="sweep")._sweep(world, number, rules)
        name = min(self.todo)
        step = replace(self, todo=self.todo - {name})
        if not step.todo and not rules.condemns_before_it_deletes and self.seq == 0:
            step = replace(step, at="claim")
        packs = frozenset(pack for pack in world.packs if pack.name != name)
        return [(f"deletes {name}", world.with_actor(number, step, packs=packs))]

    def _sweep(self, world: World, number: int, rules: Rules) -> list[Step]:
        goes_on = self.finishes and not self.only_finishes
        done = replace(self, at="list" if goes_on else "done", finishes=frozenset())
        return self.claim(world, number, ("swept", self.seq, self.finishes), done, rules)
