"""Plans a drill, checks every guard, and asks a person where one has to be asked."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastvlm_ops import settings
from fastvlm_ops.core.config import include_hash
from fastvlm_ops.operators.approving import AskPersonOperator
from fastvlm_ops.operators.disaster_recovery.shared import LEASE_MARGIN, DrillOperator
from fastvlm_ops.operators.shared import run_key

if TYPE_CHECKING:
    from airflow.sdk import Context

    from fastvlm_ops.core.config.disaster_recovery import Scenario
    from fastvlm_ops.core.disaster_recovery.guards import GuardResult
    from fastvlm_ops.core.disaster_recovery.plan import DrillPlan
    from fastvlm_ops.core.disaster_recovery.planning import Origin, Resolved
    from fastvlm_ops.core.disaster_recovery.surroundings import Surroundings
    from fastvlm_ops.core.services.control import ServiceControl
    from fastvlm_ops.core.services.instances import ServiceView
    from fastvlm_ops.core.store import Store


class GuardDrillOperator(DrillOperator):
    """Plan a drill, and refuse it unless every guard holds. The plan is recorded, and all that later tasks
    go by; the scenario file may change meanwhile.

    :param scenario: name of the scenario (templated)
    :param dry_run: whether a run that a person started breaks nothing (templated). Runs of the schedule, and
        those that a published backup starts, are no dry runs: that the file schedules them is the decision
    """

    template_fields: Sequence[str] = (*DrillOperator.template_fields, "scenario", "dry_run")

    def __init__(self, *, scenario: str, dry_run: Any = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.scenario = scenario
        self.dry_run = dry_run

    def work(self, context: Context) -> dict[str, Any]:
        """Return the plan's outline, and whether a person has to be asked."""
        from fastvlm_ops.core.config.disaster_recovery import SCENARIO_FOLDER, load_scenario
        from fastvlm_ops.core.disaster_recovery.carrying_out import outline
        from fastvlm_ops.core.disaster_recovery.guards import needs_approval

        begun = datetime.now(UTC)
        scenario = load_scenario(settings.include_dir() / SCENARIO_FOLDER / f"{self.scenario}.yaml")
        by_itself = context["dag_run"].run_type in ("scheduled", "asset_triggered")
        with self.open_store() as store:
            view, control, why = self._look(scenario)
            origin = self._origin(context, control, dry_run=bool(self.dry_run) and not by_itself)
            resolved, why = self._resolve(scenario, origin, view, why)
            plan = self._record_plan(store, scenario, origin, view, resolved)
            at = self.surroundings(context, store, Path(plan.folder), control, scenario.target)
            results = self._check(at, plan, view, resolved, why)
            asked = needs_approval(scenario, view) and not plan.dry_run
            if not plan.dry_run and all(one.ok for one in results):
                results.append(self._take_lease(store, scenario, plan.run_key, asked=asked))
            self._record(store, plan, results, begun)
        lines = outline(plan)
        for line in lines:
            self.log.info("%s%s", "would do: " if plan.dry_run else "", line)
        self._refuse(results)
        return {
            "fault_id": plan.fault_id,
            "dry_run": plan.dry_run,
            "approval": asked,
            "approval_timeout_minutes": scenario.approval_timeout_minutes,
            "outline": lines,
        }

    def _look(self, scenario: Scenario) -> tuple[ServiceView | None, ServiceControl | None, str]:
        """Return what the service says of itself, and why it does not."""
        if scenario.target.kind != "service":
            return None, None, ""
        from fastvlm_ops.core.services.control import ServiceControlError
        from fastvlm_ops.hooks.connections import ConnectionSettingError
        from fastvlm_ops.hooks.service import ServiceHook

        try:
            control = ServiceHook(scenario.target.connection).control()
            return control.view(), control, ""
        except (ConnectionSettingError, ServiceControlError) as error:
            return None, None, str(error)

    def _origin(self, context: Context, control: ServiceControl | None, *, dry_run: bool) -> Origin:
        from fastvlm_ops.core.disaster_recovery.planning import Origin

        return Origin(
            run_key=run_key(context),
            dry_run=dry_run,
            control=control.address if control else None,
            drill_dir=settings.drill_dir(),
            host=socket.gethostname(),
            include_hash=include_hash(settings.include_dir()),
            moment=datetime.now(UTC),
        )

    def _resolve(
        self, scenario: Scenario, origin: Origin, view: ServiceView | None, why: str
    ) -> tuple[Resolved, str]:
        from fastvlm_ops.core.disaster_recovery.errors import DrillRefusedError
        from fastvlm_ops.core.disaster_recovery.planning import Resolved, resolve

        if why:
            return Resolved(None), why
        try:
            return resolve(scenario, origin, view), ""
        except DrillRefusedError as error:
            return Resolved(None), str(error)

    def _record_plan(
        self, store: Store, scenario: Scenario, origin: Origin, view: ServiceView | None, resolved: Resolved
    ) -> DrillPlan:
        from fastvlm_ops.core.disaster_recovery.drills import record_plan
        from fastvlm_ops.core.disaster_recovery.planning import make_plan

        plan = make_plan(scenario, origin, view, resolved)
        record_plan(
            store,
            plan,
            rto_objective_seconds=scenario.objectives.rto_seconds,
            rpo_objective_seconds=scenario.objectives.rpo_seconds,
        )
        return plan

    def _check(
        self, at: Surroundings, plan: DrillPlan, view: ServiceView | None, resolved: Resolved, why: str
    ) -> list[GuardResult]:
        from fastvlm_ops.core.disaster_recovery.guards import GuardResult
        from fastvlm_ops.core.disaster_recovery.planning import scenario_of

        scenario = scenario_of(plan)
        results = check_all(at.store, scenario, plan.run_key, view, resolved)
        if scenario.steps.simulate_failure is not None:
            found = ", ".join(resolved.hit) or "resolved"
            results.append(GuardResult("target found", not why, "nothing" if why else found, why))
        if scenario.steady_state and view is not None:
            results.append(steady_guard(plan, at))
        return results

    def _take_lease(self, store: Store, scenario: Scenario, key: str, *, asked: bool) -> GuardResult:
        from fastvlm_ops.core.disaster_recovery.errors import DrillRefusedError
        from fastvlm_ops.core.disaster_recovery.guards import GuardResult
        from fastvlm_ops.core.disaster_recovery.leasing import LEASE, take_lease

        waiting = timedelta(minutes=scenario.approval_timeout_minutes if asked else 0)
        try:
            lease = take_lease(store, key, waiting + LEASE_MARGIN)
        except DrillRefusedError as error:
            return GuardResult("lease", False, "the lease of drills", str(error))
        return GuardResult("lease", True, f"lease {LEASE} with token {lease.token}")

    def _record(self, store: Store, plan: DrillPlan, results: list[GuardResult], begun: datetime) -> None:
        from fastvlm_ops.core.disaster_recovery.drills import record_step
        from fastvlm_ops.core.disaster_recovery.plan import StepResult

        broken = [one for one in results if not one.ok]
        summary = f"{len(results)} guards hold" if not broken else f"refused: {broken[0].why}"
        result = StepResult(
            step="guard",
            status="refused" if broken else "passed",
            summary=summary,
            problems=tuple(f"{one.name}: {one.why} (read: {one.read})" for one in broken),
            checks=tuple(one.as_dict() for one in results),
        )
        record_step(store, plan.run_key, result, started_at=begun, finished_at=datetime.now(UTC))

    def _refuse(self, results: list[GuardResult]) -> None:
        from fastvlm_ops.core.disaster_recovery.errors import DrillRefusedError

        for one in results:
            self.log.info("%s %s: %s", "ok" if one.ok else "NO", one.name, one.read if one.ok else one.why)
        if broken := [one for one in results if not one.ok]:
            raise DrillRefusedError("; ".join(f"{one.name}: {one.why} (read: {one.read})" for one in broken))


class ApproveDrillOperator(AskPersonOperator):
    """Ask a person before anything is broken, where the scenario says so, or the target is production.

    :param guarded: output of :class:`GuardDrillOperator` (templated)
    """

    question = "Break this service on purpose?"
    skips_on_rejection = True
    template_fields: Sequence[str] = (*AskPersonOperator.template_fields, "guarded")

    def __init__(self, *, guarded: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.guarded = guarded

    def is_needed(self) -> bool:
        """Return whether the guards want somebody to be asked."""
        return bool(self.guarded["approval"])

    def describe(self) -> str:
        """Return what would be done."""
        return "\n".join(["The drill would do this:", "", *(f"- {line}" for line in self.guarded["outline"])])


def check_all(
    store: Store, scenario: Scenario, key: str, view: ServiceView | None, resolved: Resolved
) -> list[GuardResult]:
    """Check every guard as things are now.

    :param store: the operations database
    :param scenario: of the drill
    :param key: of the run
    :param view: the service as it is now
    :param resolved: what would be hit
    """
    from fastvlm_ops.core.config.disaster_recovery_policy import load_policy
    from fastvlm_ops.core.disaster_recovery.guards import Situation, check_guards

    return check_guards(
        Situation(
            scenario=scenario,
            run_key=key,
            view=view,
            resolved=resolved,
            allowed=settings.drill_environments(),
            policy=load_policy(settings.include_dir()),
            store=store,
            moment=datetime.now(UTC),
        )
    )


def steady_guard(plan: DrillPlan, at: Surroundings) -> GuardResult:
    """Check that the service is in its steady state, as far as that shows without an observer.

    :param plan: of the drill
    :param at: its surroundings
    """
    from fastvlm_ops.core.disaster_recovery.guards import GuardResult
    from fastvlm_ops.core.disaster_recovery.planning import scenario_of
    from fastvlm_ops.core.disaster_recovery.watching import failing_probes

    probes = [probe for probe in scenario_of(plan).steady_state if probe.probe != "canary"]
    if failing := failing_probes(probes, plan, at):
        return GuardResult(
            "steady state", False, "; ".join(failing), "the service is broken already, and not to be drilled"
        )
    return GuardResult("steady state", True, f"{len(probes)} probes pass")
