"""From the history of all services to the published forecasts of an as-of hour."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from fastvlm_ops.hooks.prometheus import PrometheusHook
from fastvlm_ops.links.capacity import CapacityPageLink
from fastvlm_ops.operators.capacity.shared import CapacityInputError, CapacityOperator, as_of_hour
from fastvlm_ops.operators.shared import run_key

if TYPE_CHECKING:
    from airflow.sdk import Context

#: XCom of what was read: where it is, its hour, the shards, how many services and series, the horizon.
HISTORY_KEY = "history"
_LONGEST_HORIZON_DAYS = 366


class CollectMetricHistoryOperator(CapacityOperator):
    """Read the history of every metric of ``capacity.yaml`` for all services, hour by hour, and lay it down.

    Everything is read before anything is written. Returns the numbers of the shards, to map over; the XCom
    ``history`` says what was read.

    :param prometheus_conn_id: connection of type ``fastvlm_prometheus`` (templated)
    :param horizon_days: that will be forecast; that of ``capacity.yaml`` where None (templated)
    """

    template_fields: Sequence[str] = (
        "s3_conn_id",
        "operations_db_conn_id",
        "prometheus_conn_id",
        "horizon_days",
    )

    def __init__(
        self,
        *,
        prometheus_conn_id: str = PrometheusHook.default_conn_name,
        horizon_days: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.prometheus_conn_id = prometheus_conn_id
        self.horizon_days = horizon_days

    def work(self, context: Context) -> list[int]:
        """Read, then write."""
        from fastvlm_ops.core.capacity.calibrating import newest_calibration
        from fastvlm_ops.core.capacity.collecting import read_history, store_history

        definitions, moment = self.definitions, as_of_hour(context)
        days = self._horizon_days(definitions.horizon_days)
        history = read_history(PrometheusHook(self.prometheus_conn_id), definitions, moment)
        objects = self.objects
        facts = store_history(objects, history, run_key(context), definitions)
        facts |= {"horizon_days": days, "calibration": newest_calibration(objects, moment)}
        context["ti"].xcom_push(key=HISTORY_KEY, value=facts)
        self.log.info(
            "%d services before %s, %d of %d series have data; %d shards",
            facts["services"],
            facts["as_of"],
            facts["series_with_data"],
            facts["series"],
            len(facts["shards"]),
        )
        shards: list[int] = facts["shards"]
        return shards

    def _horizon_days(self, default: int) -> int:
        days = default if self.horizon_days is None else int(self.horizon_days)
        if not 1 <= days <= _LONGEST_HORIZON_DAYS:
            raise CapacityInputError(f"horizon_days is {days}; expected 1 to {_LONGEST_HORIZON_DAYS}")
        return days


class ForecastCapacityOperator(CapacityOperator):
    """Forecast the services of one shard, and say what each of their resources needs.

    :param shard: its number (templated)
    :param history: XCom ``history`` of :class:`CollectMetricHistoryOperator` (templated)
    """

    template_fields: Sequence[str] = ("s3_conn_id", "operations_db_conn_id", "shard", "history")

    def __init__(self, *, shard: int, history: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.shard = shard
        self.history = history

    def work(self, context: Context) -> dict[str, Any]:
        """Forecast."""
        from fastvlm_ops.core.capacity.calibrating import load_calibration
        from fastvlm_ops.core.capacity.shards import forecast_shard

        objects = self.objects
        result = forecast_shard(
            objects,
            self.definitions,
            run_key=run_key(context),
            shard=int(self.shard),
            as_of=datetime.fromisoformat(self.history["as_of"]),
            horizon_days=int(self.history["horizon_days"]),
            calibration=load_calibration(objects, self.history["calibration"]),
        )
        self.log.info("%d series: %s", result["series"], result["statuses"])
        return result

    def subject(self) -> dict[str, Any]:
        """Name the shard."""
        return {"shard": self.shard}


class PublishForecastOperator(CapacityOperator):
    """Join what the shards have forecast into the partition of the as-of hour, and its rows.

    A re-run replaces both; the same input gives the same bytes.

    :param history: XCom ``history`` of :class:`CollectMetricHistoryOperator` (templated)
    """

    template_fields: Sequence[str] = ("s3_conn_id", "operations_db_conn_id", "history")
    operator_extra_links = (CapacityPageLink(),)

    def __init__(self, *, history: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.history = history

    def work(self, context: Context) -> dict[str, Any]:
        """Publish."""
        from fastvlm_ops.core.capacity.calibrating import load_calibration
        from fastvlm_ops.core.capacity.publishing import publish_forecasts

        objects = self.objects
        with self.open_store() as store:
            result = publish_forecasts(
                objects,
                store,
                run_key=run_key(context),
                shards=self.history["shards"],
                as_of=datetime.fromisoformat(self.history["as_of"]),
                horizon_days=int(self.history["horizon_days"]),
                calibration=load_calibration(objects, self.history["calibration"]),
            )
        self.log.info("%s: %d series, %s", result["uri"], result["series"], result["statuses"])
        return result
