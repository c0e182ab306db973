"""Scores forecasts whose hours have come, and raises the alarm when they have become worse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from fastvlm_ops.hooks.prometheus import PrometheusHook
from fastvlm_ops.links.capacity import AccuracyPageLink
from fastvlm_ops.operators.capacity.shared import CapacityOperator, as_of_hour

if TYPE_CHECKING:
    from airflow.sdk import Context

    from fastvlm_ops.core.capacity.judging import Alarm
    from fastvlm_ops.core.store import Store

DRIFT_TOPIC = "capacity_forecast_drift"
_LISTED = 50


class ForecastDriftError(Exception):
    """Forecasts have become worse than ``capacity.yaml`` allows."""

    retryable = False


class PartitionMissingError(Exception):
    """Forecasts that should be scored are not in the bucket."""

    retryable = False


class ScoreForecastOperator(CapacityOperator):
    """Score every forecast whose hours have come by the run's as-of hour, and that has no scores yet.

    Where there were any, the bounds of later forecasts are calibrated by the last of those that have matured.
    Then the hours of forecasts older than ``keep_hourly_days`` of ``capacity.yaml`` are removed, once all of
    them have scores.

    :param prometheus_conn_id: connection of type ``fastvlm_prometheus`` (templated)
    :param again: whether forecasts that have scores are scored again (templated)
    """

    template_fields: Sequence[str] = ("s3_conn_id", "operations_db_conn_id", "prometheus_conn_id", "again")
    operator_extra_links = (AccuracyPageLink(),)

    def __init__(
        self,
        *,
        prometheus_conn_id: str = PrometheusHook.default_conn_name,
        again: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.prometheus_conn_id = prometheus_conn_id
        self.again = again

    def work(self, context: Context) -> dict[str, Any]:
        """Return how many forecasts and series were scored, and how right the last forecasts were."""
        from fastvlm_ops.core.capacity.accuracy import forecasts_due, score_due
        from fastvlm_ops.core.capacity.calibrating import learn_calibration
        from fastvlm_ops.core.capacity.judging import judge
        from fastvlm_ops.core.capacity.retention import remove_old

        definitions, moment = self.definitions, as_of_hour(context)
        with self.open_store() as store:
            due = forecasts_due(store, definitions, at=moment, again=bool(self.again))
            objects, hook = self.objects, PrometheusHook(self.prometheus_conn_id)
            result = score_due(objects, store, hook, definitions, due, progress=self.log.info)
            table, _ = judge(store, definitions, at=moment)
            learnt = learn_calibration(objects, store, hook, definitions, at=moment) if due else None
            cleaned = remove_old(
                objects,
                store,
                definitions,
                at=moment,
                progress=lambda line: self.log.info("Older than keep_hourly_days, removed: %s", line),
            )
        if missing := result["missing"]:
            raise PartitionMissingError(
                f"{len(missing)} partitions are not in the bucket, and were not scored: "
                f"{', '.join(missing[:_LISTED])}. Backfill capacity_forecast over them"
            )
        self.log.info("%d forecasts scored, %d series", result["scored"], result["series"])
        return {
            "as_of": moment.isoformat(),
            "scored": result["scored"],
            "series": result["series"],
            "accuracy": [asdict(one) for one in table],
            "calibration": None if learnt is None else dict(learnt.factors),
            **cleaned,
        }


class CheckForecastDriftOperator(CapacityOperator):
    """Fail when the last forecasts of a series were worse than ``capacity.yaml`` allows.

    Logs how right the last forecasts were, by metric and horizon. Each series gets a message in the outbox:
    one for each newest as-of hour, however often it fails.
    """

    operator_extra_links = (AccuracyPageLink(),)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._drifted: list[dict[str, Any]] = []

    def work(self, context: Context) -> dict[str, Any]:
        """Return as of when none has become worse."""
        from fastvlm_ops.core.capacity.judging import accuracy_table, judge

        moment = as_of_hour(context)
        with self.open_store() as store:
            table, alarms = judge(store, self.definitions, at=moment)
            self._drifted = [_evidence(alarm) for alarm in alarms[:_LISTED]]
            self._announce(store, alarms, moment.isoformat())
        self.log.info("How right the last forecasts were:\n%s", accuracy_table(table))
        if alarms:
            raise ForecastDriftError(drift_text(alarms))
        return {"as_of": moment.isoformat(), "drifted": 0}

    def subject(self) -> dict[str, Any]:
        """Name the series."""
        return {"drifted": self._drifted}

    def _announce(self, store: Store, alarms: Sequence[Alarm], as_of: str) -> None:
        from fastvlm_ops.core.store.outbox import enqueue

        with store.write() as connection:
            for alarm in alarms:
                enqueue(
                    connection,
                    topic=DRIFT_TOPIC,
                    dedup_key=f"{DRIFT_TOPIC}/{alarm.service}/{alarm.metric}/{alarm.horizon_days}/{as_of}",
                    payload={**_evidence(alarm), "text": drift_text([alarm])},
                )


def _evidence(alarm: Alarm) -> dict[str, Any]:
    return {**asdict(alarm), "reasons": list(alarm.reasons)}


def drift_text(alarms: Sequence[Alarm]) -> str:
    """Return which forecasts have become worse, and what to do.

    :param alarms: at least one
    """
    lines = [f"forecasts of {len(alarms)} series have become worse"]
    lines += [
        f"{alarm.service}, {alarm.metric}, over {alarm.horizon_days} days: {'; '.join(alarm.reasons)}"
        for alarm in alarms[:_LISTED]
    ]
    lines.append(
        "Look at the series: new behaviour is learnt within weeks; a bound that keeps failing asks for a"
        " lower chance_of_shortfall in capacity.yaml. See docs/runbooks/capacity_accuracy.md"
    )
    return "\n".join(lines)
