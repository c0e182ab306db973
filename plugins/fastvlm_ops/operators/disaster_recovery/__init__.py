"""Operators of disaster-recovery drills."""

from fastvlm_ops.operators.disaster_recovery.guard import ApproveDrillOperator, GuardDrillOperator
from fastvlm_ops.operators.disaster_recovery.report import ReapFaultsOperator, ReportDrillOperator
from fastvlm_ops.operators.disaster_recovery.steps import (
    ArmDrillOperator,
    RestoreServiceOperator,
    SimulateFailureOperator,
    UndoFaultOperator,
    ValidateRecoveryOperator,
    VerifyFailoverOperator,
)

__all__ = [
    "ApproveDrillOperator",
    "ArmDrillOperator",
    "GuardDrillOperator",
    "ReapFaultsOperator",
    "ReportDrillOperator",
    "RestoreServiceOperator",
    "SimulateFailureOperator",
    "UndoFaultOperator",
    "ValidateRecoveryOperator",
    "VerifyFailoverOperator",
]
