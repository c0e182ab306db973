"""Inspects Core ML models, runs them on devices, and keeps a release back that got worse."""

from fastvlm_ops.operators.coreml.devices import BenchmarkModelOperator, PlanBenchmarksOperator
from fastvlm_ops.operators.coreml.gate import (
    RegressionError,
    RegressionGateOperator,
    ReportBenchmarksOperator,
)
from fastvlm_ops.operators.coreml.models import DiscoverModelsOperator, InspectModelOperator
from fastvlm_ops.operators.coreml.shared import CoreMLInputError, CoreMLOperator
from fastvlm_ops.operators.coreml.verdicts import (
    PROMOTE_ASK,
    PROMOTE_GREEN,
    PROMOTE_NONE,
    ApprovePromotionOperator,
    CompareWithBaselineOperator,
    PromoteBaselineOperator,
)

__all__ = [
    "PROMOTE_ASK",
    "PROMOTE_GREEN",
    "PROMOTE_NONE",
    "ApprovePromotionOperator",
    "BenchmarkModelOperator",
    "CompareWithBaselineOperator",
    "CoreMLInputError",
    "CoreMLOperator",
    "DiscoverModelsOperator",
    "InspectModelOperator",
    "PlanBenchmarksOperator",
    "PromoteBaselineOperator",
    "RegressionError",
    "RegressionGateOperator",
    "ReportBenchmarksOperator",
]
