"""``include/disaster_recovery_policy.yaml``: which drills may run in production, and nothing else may."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from fastvlm_ops.core.config.disaster_recovery import SCENARIO_PATTERN
from fastvlm_ops.core.config.disaster_recovery_steps import Name
from fastvlm_ops.core.config.reading import Definition, DefinitionFile, read_definition_file

POLICY_FILE = "disaster_recovery_policy.yaml"


class Permit(Definition):
    """A drill that may run in production. A person is asked each time all the same."""

    scenario: Annotated[str, Field(pattern=SCENARIO_PATTERN, description="name of the scenario")]
    environment: Annotated[Name, Field(description="as the target itself says")]
    until: Annotated[
        date, Field(strict=False, description="last day, in UTC: a permit that nobody renews ends")
    ]
    reason: Annotated[str, Field(min_length=1, max_length=500, description="who decided it, and why")]


class DisasterRecoveryPolicy(DefinitionFile):
    """What is allowed beyond the rules that hold everywhere."""

    version: Annotated[Literal[1], Field(description="version of this format: 1")]
    production: Annotated[
        tuple[Permit, ...], Field(strict=False, description="drills that may run in production")
    ] = ()


def load_policy(include_dir: Path) -> DisasterRecoveryPolicy:
    """Read the policy; where there is no such file, nothing is allowed.

    :param include_dir: the folder of the definition files
    :raises DefinitionError: the file is broken
    """
    file = include_dir / POLICY_FILE
    if not file.exists():
        return DisasterRecoveryPolicy(version=1).read_from(file)
    return read_definition_file(file, DisasterRecoveryPolicy)
