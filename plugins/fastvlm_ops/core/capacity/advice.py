"""Recommendations in the operations database. What is recommended depends on what earlier hours recommended.

So that backfilled runs may end in any order, each also works out anew what was recommended for later hours:
when all runs have ended, the rows are those that runs in order would have left.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, delete, select, text, update

from fastvlm_ops.core.capacity.objects import CapacityObjects
from fastvlm_ops.core.capacity.publishing import find_partition
from fastvlm_ops.core.capacity.recommending import Recommendation, ScalingRules, ServiceState, recommend
from fastvlm_ops.core.capacity.required import Required
from fastvlm_ops.core.capacity.rules import AppliedState, Thresholds
from fastvlm_ops.core.config.capacity import RESOURCES, Capacity
from fastvlm_ops.core.store.errors import ArtefactDamagedError
from fastvlm_ops.core.store.tables.capacity import forecasts, recommendations
from fastvlm_ops.core.store.upsert import upsert

if TYPE_CHECKING:
    from fastvlm_ops.core.store import Store

_REMEMBERED = timedelta(days=31)
_KEY = ("as_of", "service")
_CHANGES = ("scale_up", "scale_down")


def rules_of(definitions: Capacity) -> ScalingRules:
    """Return the rules that ``capacity.yaml`` states.

    :param definitions: ``capacity.yaml``
    """
    limits = {resource: getattr(definitions.thresholds, resource) for resource in RESOURCES}
    return ScalingRules(
        thresholds={
            resource: Thresholds(limit.scale_up_above_percent, limit.scale_down_below_percent)
            for resource, limit in limits.items()
        },
        minimum=definitions.replicas.minimum,
        maximum=definitions.replicas.maximum,
        agreeing_runs=definitions.agreeing_runs,
        cool_down_days=definitions.cool_down_days,
    )


def replicas_of(objects: CapacityObjects, as_of: datetime) -> dict[str, int | None]:
    """Return how many replicas each service of a partition had; None where that is not known.

    :param objects: where the partition is
    :param as_of: full hour, in UTC
    :raises ArtefactDamagedError: there is none
    """
    partition = find_partition(objects, as_of)
    if partition is None:
        raise ArtefactDamagedError(f"there is no partition of {as_of.isoformat()}; clear publish_forecast")
    table = partition.table("series")
    return dict(zip(table["service"].to_pylist(), table["replicas"].to_pylist(), strict=True))


def recommend_all(
    store: Store,
    *,
    as_of: datetime,
    replicas: Mapping[str, int | None],
    rules: ScalingRules,
    run_key: str,
) -> list[Recommendation]:
    """Recommend for all services of an as-of hour, and anew for later hours.

    :param store: the operations database, which has the forecasts of that hour
    :param as_of: full hour, in UTC
    :param replicas: that ran then, by service
    :param rules: when and how far to scale
    :param run_key: of the run
    :returns: those of this hour, by service
    """
    with store.write() as connection:
        _take_turn(connection)
        here = recommendations.c.as_of == as_of
        columns = (recommendations.c.service, recommendations.c.applied_state)
        known = connection.execute(select(*columns).where(here))
        decided = {row.service: row.applied_state for row in known}
        connection.execute(delete(recommendations).where(here))
        rows = [
            _row(
                Recommendation(service, as_of, "none", count, None, "", decided.get(service, "planned")),
                run_key,
            )
            for service, count in sorted(replicas.items())
        ]
        upsert(connection, recommendations, rows, key=_KEY)
        return _replay(connection, as_of, rules)


def decide(store: Store, *, as_of: datetime, approved: bool, rules: ScalingRules) -> list[Recommendation]:
    """Note what was decided on an hour's recommendations: what adds is approved without being asked.

    :param store: the operations database
    :param as_of: full hour, in UTC
    :param approved: whether a person approved what takes away
    :param rules: when and how far to scale
    :returns: those of this hour, by service
    """
    answers = {"scale_up": "approved", "scale_down": "approved" if approved else "rejected"}
    with store.write() as connection:
        _take_turn(connection)
        for action, state in answers.items():
            connection.execute(
                update(recommendations)
                .where(recommendations.c.as_of == as_of, recommendations.c.action == action)
                .values(applied_state=state)
            )
        return _replay(connection, as_of, rules)


def read_recommendations(connection: Connection, as_of: datetime) -> list[Recommendation]:
    """Return the recommendations of an hour, by service.

    :param connection: of any transaction
    :param as_of: full hour
    """
    query = select(recommendations).where(recommendations.c.as_of == as_of)
    rows = connection.execute(query.order_by(recommendations.c.service)).mappings()
    return [_recommendation(dict(row)) for row in rows]


def needs_of(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Required]]:
    """Return what each resource needs, by service, of rows of ``capacity_forecast``.

    :param rows: of one as-of hour
    """
    needs: dict[str, dict[str, Required]] = defaultdict(dict)
    for row in rows:
        needs[row["service"]][row["metric"]] = Required(
            row["current_usage"],
            row["forecasted_peak"],
            row["required_seed"],
            row["required_risk"],
            row["exhaustion_probability"],
            row["exhaustion_date"],
            row["monthly_cost"],
        )
    return dict(needs)


def changes(found: Sequence[Recommendation], action: str) -> list[Recommendation]:
    """Return those with an action.

    :param found: recommendations
    :param action: as in ``scale_down``
    """
    return [one for one in found if one.action == action]


def _take_turn(connection: Connection) -> None:
    """Until the transaction ends, nobody else recommends; SQLite has one writer anyhow."""
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"LOCK TABLE {recommendations.name} IN SHARE ROW EXCLUSIVE MODE"))


def _replay(connection: Connection, since: datetime, rules: ScalingRules) -> list[Recommendation]:
    """Work out the recommendations of an hour, and of all later ones in order; return those of that hour."""
    query = select(recommendations).where(recommendations.c.as_of >= since - _REMEMBERED)
    stored: dict[datetime, dict[str, Any]] = defaultdict(dict)
    for row in connection.execute(
        query.order_by(recommendations.c.as_of, recommendations.c.service)
    ).mappings():
        stored[row["as_of"]][row["service"]] = row
    past: dict[str, list[Recommendation]] = defaultdict(list)
    first: list[Recommendation] = []
    for moment, rows in sorted(stored.items()):
        if moment < since:
            new = [_recommendation(row) for row in rows.values()]
        else:
            new = _recommend_hour(connection, moment, rows, past, rules)
            written = [_row(one, rows[one.service]["run_key"]) for one in new]
            upsert(connection, recommendations, written, key=_KEY)
        first = new if moment == since else first
        for one in new:
            past[one.service].append(one)
    return first


def _recommend_hour(
    connection: Connection,
    moment: datetime,
    rows: Mapping[str, Mapping[str, Any]],
    past: Mapping[str, Sequence[Recommendation]],
    rules: ScalingRules,
) -> list[Recommendation]:
    query = select(forecasts).where(forecasts.c.as_of == moment)
    found = list(connection.execute(query).mappings())
    of_service: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for one in found:
        of_service[one["service"]].append(dict(one))
    result = []
    for service, row in sorted(rows.items()):
        metrics = {one["metric"]: one for one in of_service.get(service, ())}
        state = ServiceState(
            service=service,
            as_of=moment,
            replicas=row["replicas_now"],
            capacities={name: one["capacity"] for name, one in metrics.items()},
            statuses={name: one["status"] for name, one in metrics.items()},
            history_days={name: one["history_days"] or 0.0 for name, one in metrics.items()},
        )
        needs: Any = needs_of(metrics.values()).get(service, {})
        recent = [one for one in past.get(service, ()) if one.as_of >= moment - _REMEMBERED]
        advice = recommend(state, needs, recent, rules)
        # An answer of a person stays, for what was asked; what is no change needs none.
        decided: AppliedState = row["applied_state"] if advice.action in _CHANGES else "planned"
        result.append(replace(advice, applied_state=decided))
    return result


def _row(one: Recommendation, run_key: str) -> dict[str, Any]:
    return {
        "as_of": one.as_of,
        "service": one.service,
        "action": one.action,
        "replicas_now": one.replicas_now,
        "replicas_wanted": one.replicas_wanted,
        "replicas_needed": one.replicas_needed,
        "capped": one.capped,
        "trigger_metric": one.trigger,
        "reason": one.reason,
        "applied_state": one.applied_state,
        "run_key": run_key,
    }


def _recommendation(row: Mapping[str, Any]) -> Recommendation:
    return Recommendation(
        service=row["service"],
        as_of=row["as_of"],
        action=row["action"],
        replicas_now=row["replicas_now"],
        replicas_wanted=row["replicas_wanted"],
        reason=row["reason"],
        applied_state=row["applied_state"],
        replicas_needed=row["replicas_needed"],
        capped=row["capped"],
        trigger=row["trigger_metric"],
    )
