"""Every state that the actors of a world can reach, breadth first."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from tests.unit.core.backup.model.protocol import Rules, World


@dataclass(frozen=True)
class Outcome:
    """``states`` that were looked at; ``loss`` and the shortest way to it, where there is one."""

    states: int
    loss: str | None = None
    way: tuple[str, ...] = ()


def explore(start: World, rules: Rules) -> Outcome:
    """Look at every interleaving until one loses data, or there are no more."""
    before: dict[World, tuple[World, str] | None] = {start: None}
    queue = deque([start])
    while queue:
        world = queue.popleft()
        for number, actor in enumerate(world.actors):
            for what, after in actor.steps(world, number, rules):
                if after in before:
                    continue
                before[after] = (world, what)
                loss = after.lost(rules) or next(
                    (f"{one.name} does not find all" for one in after.actors if one.at == "lost"), None
                )
                if loss is not None:
                    return Outcome(len(before), loss, _way_to(after, before))
                queue.append(after)
    return Outcome(len(before))


def _way_to(world: World, before: dict[World, tuple[World, str] | None]) -> tuple[str, ...]:
    way = []
    while (step := before[world]) is not None:
        world, what = step
        way.append(what)
    return tuple(reversed(way))
