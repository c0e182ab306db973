"""How many replicas a service should have, and why.

The thresholds and steps are the kit's own. Made safe: as many replicas as are needed instead of a blind
doubling, none taken away that would at once be missed, and nothing taken away on thin data, shortly after a
change, or because a single run says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

from fastvlm_ops.core.capacity.required import Required
from fastvlm_ops.core.capacity.rules import Action, Recommendation, ScalingRules, ServiceState, Thresholds
from fastvlm_ops.core.config.capacity import RESOURCES, Resource

__all__ = ["Recommendation", "ScalingRules", "ServiceState", "recommend"]

_NAMES: Mapping[Resource, str] = {"cpu": "CPU", "memory": "memory", "requests": "requests"}
_UNUSABLE = frozenset({"stale", "no_data", "failed"})
_MEMORY_ALONE = "more replicas relieve only memory that grows with load"
_REMEMBERED = timedelta(days=30)
_TOGETHER = timedelta(days=2)
"""Runs that agree are no further apart: what was wanted a week ago is no agreement."""


@dataclass(frozen=True)
class _Load:
    """A resource's use, in percent of what there is.

    :param expected: usage now, or the forecast's peak where that is more: what the thresholds are about
    :param worst: what is exceeded with the chance that was set: it has to fit into what there is. Of a short
        history it says little but that little is known, and counts no more than what is to be expected
    :param forecast: whether there is one: without it, both are no more than usage now
    """

    resource: Resource
    now: float
    expected: float
    worst: float
    forecast: bool

    @property
    def name(self) -> str:
        return _NAMES[self.resource]

    def said(self) -> str:
        """As in ``CPU at 75 % now, 92 % to be expected``."""
        return f"{self.name} at {self.now:.0f} % now, {self.expected:.0f} % to be expected"

    def replicas(self, now: int, limit: Thresholds, share: float) -> float:
        """How many keep what is expected at a share of its threshold, and the worst within what there is."""
        return now * max(self.expected / (limit.up * share), self.worst / 100)


def recommend(
    state: ServiceState,
    needs: Mapping[Resource, Required],
    past: Sequence[Recommendation],
    rules: ScalingRules,
) -> Recommendation:
    """Return what to do about a service.

    :param state: of the service
    :param needs: by resource
    :param past: earlier recommendations, in any order; those that are not before ``state.as_of`` are left out
    :param rules: when and how far to scale
    """
    earlier = sorted(
        (one for one in past if one.service == state.service and one.as_of < state.as_of),
        key=lambda one: one.as_of,
    )
    loads = _loads(state, needs)
    if blind := _blind(state, loads):
        return blind
    now = state.replicas
    if now is None:  # never: it had been blind
        raise AssertionError
    if now < rules.minimum:
        reason = f"{now} of at least {rules.minimum} replicas run"
        return _said(state, "scale_up", rules.minimum, reason, needed=rules.minimum)
    up = [load for load in loads if load.expected > rules.thresholds[load.resource].up]
    if up:
        return _scale_up(state, now, up, earlier, rules)
    low = [load for load in loads if load.expected < rules.thresholds[load.resource].down]
    if len(low) == len(loads):
        return _scale_down(state, now, loads, earlier, rules)
    return _stay(state, now, loads, rules)


def _loads(state: ServiceState, needs: Mapping[Resource, Required]) -> list[_Load]:
    """The load of each resource that something is known of."""
    loads = []
    for resource in RESOURCES:
        need = needs.get(resource)
        if need is None or need.current_usage is None or state.statuses.get(resource, "") in _UNUSABLE:
            continue
        full = state.capacities.get(resource)
        if full is None or not full > 0:
            continue
        now = need.current_usage / full * 100
        expected = max(now, (need.forecasted_peak or 0.0) / full * 100)
        known = state.statuses.get(resource) == "ok"
        worst = max(expected, (need.required_risk or 0.0) / full * 100) if known else expected
        loads.append(_Load(resource, now, expected, worst, forecast=need.required_risk is not None))
    return loads


def _blind(state: ServiceState, loads: Sequence[_Load]) -> Recommendation | None:
    """What is said where nothing can be; None where something can."""
    told = [f"{_NAMES[resource]}: {state.statuses.get(resource, 'no metric')}" for resource in RESOURCES]
    if not loads and "stale" in state.statuses.values():
        return _said(state, "stale", None, f"its metrics have ended ({', '.join(told)}); is it still there?")
    if not loads:
        return _said(state, "insufficient_data", None, f"nothing is known of its load ({', '.join(told)})")
    if state.replicas is None:
        reason = "how many replicas run is not known: see the query `replicas` in capacity.yaml"
        return _said(state, "insufficient_data", None, reason)
    if state.replicas < 1:
        return _said(state, "insufficient_data", None, "no replica runs, so that nothing says what one needs")
    return None


def _needed(now: int, loads: Sequence[_Load], rules: ScalingRules, share: float) -> tuple[int, _Load]:
    """How many replicas all loads need, see :meth:`_Load.replicas`, and the load that decides."""
    needed = [
        (math.ceil(round(load.replicas(now, rules.thresholds[load.resource], share), 9)), load)
        for load in loads
    ]
    count, deciding = max(needed, key=lambda pair: pair[0])
    return max(count, 1), deciding


def _scale_up(
    state: ServiceState,
    now: int,
    hot: Sequence[_Load],
    earlier: Sequence[Recommendation],
    rules: ScalingRules,
) -> Recommendation:
    needed, deciding = _needed(now, hot, rules, rules.target_share)
    needed = max(needed, now + 1)
    wanted = max(min(needed, now * rules.largest_step, rules.maximum), now)
    reasons = [f"{load.said()}, above {rules.thresholds[load.resource].up:g} %" for load in hot]
    reasons.append(f"{needed} replicas are needed")
    if deciding.worst / 100 > deciding.expected / (
        rules.thresholds[deciding.resource].up * rules.target_share
    ):
        reasons[-1] += f", to have room for {deciding.worst:.0f} % in the worst case"
    capped = needed > rules.maximum
    if capped:
        reasons.append(f"{rules.maximum} is the most that capacity.yaml allows: raise replicas.maximum")
    elif wanted < needed:
        reasons.append(f"{wanted} at first, since a step is at most times {rules.largest_step}")
    if all(load.resource == "memory" for load in hot):
        reasons.append(_MEMORY_ALONE)
        if wanted > now and _tried_for_memory(state, now, earlier):
            reasons.append("and they were tried: each replica may need more memory")
            wanted = now
    action: Action = "scale_up" if wanted > now else "none"
    return _said(state, action, wanted, "; ".join(reasons), needed=needed, capped=capped, load=deciding)


def _scale_down(
    state: ServiceState,
    now: int,
    loads: Sequence[_Load],
    earlier: Sequence[Recommendation],
    rules: ScalingRules,
) -> Recommendation:
    """Fewer replicas, if nothing speaks against it.

    Memory is taken as if all of it moved to the replicas that stay: how much does is not known.
    """
    needed, deciding = _needed(now, loads, rules, rules.settled_share)
    wanted = max(needed, math.ceil(now / rules.largest_step), rules.minimum)
    low = ", ".join(f"{load.name} {load.expected:.0f} %" for load in loads)
    reasons = [f"{low} to be expected, all low"]
    if wanted >= now:
        right = f"{now} replicas are needed, or {deciding.name} would at once be high"
        least = f"{now} is the least that capacity.yaml allows"
        reasons.append(least if now <= rules.minimum else right)
        return _said(state, "none", now, "; ".join(reasons), needed=needed, load=deciding)
    agreeing = _agreeing(state, now, earlier)
    # What the most careful of the runs that agree would have done.
    wanted = max(wanted, *(one.replicas_wanted or 0 for one in agreeing[: rules.agreeing_runs - 1]), 0)
    after = ", ".join(f"{load.name} {load.expected * now / wanted:.0f} %" for load in loads)
    reasons.append(f"with {wanted} replicas it would be {after}")
    against = _thin(state, loads, rules) or _too_soon(state, wanted, earlier, len(agreeing), rules)
    if against:
        reasons.append(f"not yet: {against}")
    action: Action = "none" if against else "scale_down"
    return _said(state, action, wanted, "; ".join(reasons), needed=needed, load=deciding)


def _thin(state: ServiceState, loads: Sequence[_Load], rules: ScalingRules) -> str:
    """What is not known well enough to take replicas away; empty where all is."""
    known = {load.resource for load in loads if load.forecast}
    for resource in RESOURCES:
        status = state.statuses.get(resource, "no metric")
        if resource not in known or status != "ok":
            told = status if status != "ok" else "no forecast, or its capacity is not known"
            return f"{_NAMES[resource]} is not well known ({told})"
        days = state.history_days.get(resource, 0.0)
        if days < rules.minimum_history_days:
            return (
                f"{_NAMES[resource]} has {days:.0f} d of history, {rules.minimum_history_days:g} d are wanted"
            )
    return ""


def _too_soon(
    state: ServiceState,
    wanted: int,
    earlier: Sequence[Recommendation],
    agreeing: int,
    rules: ScalingRules,
) -> str:
    """What has to be waited for before replicas are taken away; empty where nothing has."""
    changed = _last_change(state, earlier)
    if changed is not None and state.as_of - changed < timedelta(days=rules.cool_down_days):
        ago = _days_ago(state, changed)
        return f"the last change or answer was {ago}, {rules.cool_down_days:g} d are waited"
    hot = [one.as_of for one in earlier if one.action == "scale_up" and (one.replicas_now or 0) >= wanted]
    if hot and state.as_of - hot[-1] < timedelta(days=rules.heat_days):
        return f"{_days_ago(state, hot[-1])} as many were too few, {rules.heat_days:g} d are waited"
    if 1 + agreeing < rules.agreeing_runs:
        return f"{1 + agreeing} of {rules.agreeing_runs} runs in a row agree"
    return ""


def _days_ago(state: ServiceState, moment: datetime) -> str:
    return f"{(state.as_of - moment) / timedelta(days=1):.0f} d ago"


def _agreeing(state: ServiceState, now: int, earlier: Sequence[Recommendation]) -> list[Recommendation]:
    """The runs before this one, without a break, that wanted fewer of the same number of replicas."""
    found: list[Recommendation] = []
    after = state.as_of
    for one in reversed(earlier):
        if not one.wants_fewer or one.replicas_now != now or after - one.as_of > _TOGETHER:
            break
        found.append(one)
        after = one.as_of
    return found


def _tried_for_memory(state: ServiceState, now: int, earlier: Sequence[Recommendation]) -> bool:
    """Whether replicas were added for memory alone before; it is high all the same."""
    return any(
        one.action == "scale_up"
        and _MEMORY_ALONE in one.reason
        and one.replicas_now is not None
        and one.replicas_now < now
        and state.as_of - one.as_of < _REMEMBERED
        for one in earlier
    )


def _last_change(state: ServiceState, earlier: Sequence[Recommendation]) -> datetime | None:
    """When the number of replicas was last seen to be another, or a person last approved or rejected one."""
    known = [one for one in earlier if one.replicas_now is not None]
    counts = [(one.as_of, one.replicas_now) for one in known] + [(state.as_of, state.replicas)]
    moments = [at for (_, before), (at, count) in pairwise(counts) if count != before]
    moments += [one.as_of for one in earlier if one.applied_state in ("approved", "rejected")]
    return max(moments, default=None)


def _stay(state: ServiceState, now: int, loads: Sequence[_Load], rules: ScalingRules) -> Recommendation:
    needed, deciding = _needed(now, loads, rules, rules.target_share)
    busy = max(loads, key=lambda load: load.expected / rules.thresholds[load.resource].up)
    limit = rules.thresholds[busy.resource]
    reason = f"{busy.said()}: {now} replicas are right (more above {limit.up:g} %)"
    over = [f"{load.name} {load.worst:.0f} %" for load in loads if load.worst > 100]
    if over:
        reason += f"; watched, since the worst case is more than there is: {', '.join(over)}"
    return _said(state, "none", now, reason, needed=needed, load=deciding)


def _said(
    state: ServiceState,
    action: Action,
    wanted: int | None,
    reason: str,
    *,
    needed: int | None = None,
    capped: bool = False,
    load: _Load | None = None,
) -> Recommendation:
    return Recommendation(
        service=state.service,
        as_of=state.as_of,
        action=action,
        replicas_now=state.replicas,
        replicas_wanted=wanted,
        reason=reason[0].upper() + reason[1:],
        replicas_needed=needed,
        capped=capped,
        trigger=load.resource if load else "",
    )
