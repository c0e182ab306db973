"""Probes of a scenario: whether something holds right now. What cannot be told does not hold."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from fastvlm_ops.core.config.disaster_recovery_steps import CanaryProbe, HttpProbe, InstancesProbe, Probe
from fastvlm_ops.core.disaster_recovery.errors import DrillError
from fastvlm_ops.core.disaster_recovery.observing import read_ledger
from fastvlm_ops.core.disaster_recovery.plan import DrillPlan
from fastvlm_ops.core.disaster_recovery.service_requests import ask, read_rows
from fastvlm_ops.core.disaster_recovery.surroundings import Surroundings
from fastvlm_ops.core.services.control import ServiceControlError

#: The canary is alive when a write of it was acknowledged so lately.
_FRESH_SECONDS = 3.0


@dataclass(frozen=True)
class ProbeOutcome:
    """What a probe has found.

    :param ok: whether it holds; False as well where that cannot be told
    :param detail: what was found, for people
    """

    ok: bool
    detail: str


def run_probe(probe: Probe, plan: DrillPlan, at: Surroundings) -> ProbeOutcome:
    """Run a probe once.

    :param probe: of the scenario
    :param plan: of the drill
    :param at: its surroundings
    """
    try:
        if isinstance(probe, HttpProbe):
            return _http(probe, plan)
        if isinstance(probe, InstancesProbe):
            return _instances(probe, at)
        return _canary(probe, plan)
    except (DrillError, ServiceControlError) as error:
        return ProbeOutcome(False, f"the {probe.probe} probe could not be told: {error}")


def _http(probe: HttpProbe, plan: DrillPlan) -> ProbeOutcome:
    import httpx

    if plan.url is None:
        return ProbeOutcome(False, f"{probe.path} cannot be asked: the service did not say where it is")
    try:
        response = ask(plan.url, probe.path, probe.within_ms / 1000)
    except httpx.HTTPError as error:
        why = str(error) or type(error).__name__
        return ProbeOutcome(False, f"{probe.path} was not answered within {probe.within_ms} ms: {why}")
    took_ms = response.elapsed.total_seconds() * 1000
    said = f"{probe.path} answered {response.status_code} in {took_ms:.0f} ms"
    if response.status_code != probe.status:
        return ProbeOutcome(False, f"{said}, expected {probe.status}: {response.text[:200]}")
    if took_ms > probe.within_ms:
        return ProbeOutcome(False, f"{said}, expected within {probe.within_ms} ms")
    return ProbeOutcome(True, said)


def _instances(probe: InstancesProbe, at: Surroundings) -> ProbeOutcome:
    if at.control is None:
        return ProbeOutcome(False, "instances cannot be counted: the target is no service")
    found = at.control.view().of_role(probe.role)
    healthy = [one.name for one in found if one.healthy]
    said = f"{len(healthy)} of {len(found)} of role {probe.role} are healthy"
    if len(healthy) >= probe.healthy:
        return ProbeOutcome(True, said)
    ill = "; ".join(f"{one.name}: {one.detail or 'not known'}" for one in found if not one.healthy)
    return ProbeOutcome(False, f"{said}, expected at least {probe.healthy}{f' ({ill})' if ill else ''}")


def _canary(_probe: CanaryProbe, plan: DrillPlan) -> ProbeOutcome:
    if plan.url is None:
        return ProbeOutcome(False, "the canary's rows cannot be read: the service did not say where it is")
    _, writes = read_ledger(Path(plan.folder))
    acknowledged = [one for one in writes if one.acknowledged_ns is not None]
    if not acknowledged:
        return ProbeOutcome(False, "no write of the canary was ever acknowledged")
    last = acknowledged[-1]
    age = (time.monotonic_ns() - last.sent_ns) / 1e9
    if age > _FRESH_SECONDS:
        return ProbeOutcome(False, f"no write of the canary was acknowledged in the last {age:.1f} s")
    if read_rows(plan.url, last.id).get(last.id) != last.sha256:
        return ProbeOutcome(False, f"the canary's row {last.id} was acknowledged and is not there as written")
    return ProbeOutcome(True, f"the canary's row {last.id} is there as written")
