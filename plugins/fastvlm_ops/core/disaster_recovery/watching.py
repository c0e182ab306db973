"""Watches, while a step waits, for what a drill has to be broken off for: its conditions, and the lever."""

from __future__ import annotations

import time
from collections.abc import Sequence

from fastvlm_ops.core.config.disaster_recovery_steps import Probe
from fastvlm_ops.core.disaster_recovery.errors import DrillAbortedError
from fastvlm_ops.core.disaster_recovery.lever import read_lever
from fastvlm_ops.core.disaster_recovery.plan import DrillPlan
from fastvlm_ops.core.disaster_recovery.planning import scenario_of
from fastvlm_ops.core.disaster_recovery.surroundings import Surroundings

_LEVER_SECONDS = 1.0
_PROBE_SECONDS = 1.0


class Watch:
    """What every wait of a step goes through.

    :param plan: of the drill
    :param at: its surroundings
    """

    def __init__(self, plan: DrillPlan, at: Surroundings) -> None:
        self._plan, self._at = plan, at
        self._conditions = scenario_of(plan).abort_when
        self._failing_since: dict[int, float] = {}
        self._lever_at = self._probes_at = 0.0

    def pause(self, seconds: float) -> None:
        """Wait.

        :param seconds: how long
        :raises DrillAbortedError: the drill has to be broken off
        """
        time.sleep(seconds)
        now = time.monotonic()
        if now - self._lever_at >= _LEVER_SECONDS:
            self._lever_at = now
            self._look_at_lever()
        if self._conditions and now - self._probes_at >= _PROBE_SECONDS:
            self._probes_at = now
            self._look_at_conditions()

    def _look_at_lever(self) -> None:
        lever = read_lever(self._at.store)  # one that cannot be read ends the step as well
        if lever.state != "allowed":
            raise DrillAbortedError(f"the safety lever was pulled: {lever.text}")

    def _look_at_conditions(self) -> None:
        for number, condition in enumerate(self._conditions):
            failing = failing_probes([condition.failing], self._plan, self._at)
            if not failing:
                self._failing_since.pop(number, None)
                continue
            since = self._failing_since.setdefault(number, time.monotonic())
            if time.monotonic() - since >= condition.for_seconds:
                raise DrillAbortedError(
                    f"broken off as abort_when says, after {condition.for_seconds:g} s: {failing[0]}"
                )


def failing_probes(probes: Sequence[Probe], plan: DrillPlan, at: Surroundings) -> list[str]:
    """Run probes once; return what is wrong, in words, of those that do not pass.

    :param probes: of the scenario
    :param plan: of the drill
    :param at: its surroundings
    """
    from fastvlm_ops.core.disaster_recovery.probes import run_probe

    outcomes = [run_probe(probe, plan, at) for probe in probes]
    return [outcome.detail for outcome in outcomes if not outcome.ok]
