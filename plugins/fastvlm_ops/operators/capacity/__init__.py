"""Forecasts the capacity that services need, recommends, and keeps score."""

from fastvlm_ops.operators.capacity.accuracy import (
    CheckForecastDriftOperator,
    ForecastDriftError,
    PartitionMissingError,
    ScoreForecastOperator,
)
from fastvlm_ops.operators.capacity.advice import (
    ApproveScaleDownOperator,
    ConfirmForecastOperator,
    ForecastUnknownError,
    RecommendScalingOperator,
    ReportCapacityOperator,
)
from fastvlm_ops.operators.capacity.forecast import (
    HISTORY_KEY,
    CollectMetricHistoryOperator,
    ForecastCapacityOperator,
    PublishForecastOperator,
)
from fastvlm_ops.operators.capacity.shared import CapacityInputError, CapacityOperator, as_of_hour

__all__ = [
    "HISTORY_KEY",
    "ApproveScaleDownOperator",
    "CapacityInputError",
    "CapacityOperator",
    "CheckForecastDriftOperator",
    "CollectMetricHistoryOperator",
    "ConfirmForecastOperator",
    "ForecastCapacityOperator",
    "ForecastDriftError",
    "ForecastUnknownError",
    "PartitionMissingError",
    "PublishForecastOperator",
    "RecommendScalingOperator",
    "ReportCapacityOperator",
    "ScoreForecastOperator",
    "as_of_hour",
]
