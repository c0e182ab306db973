"""``include/observability/prometheus/*.rules.yaml``: what Prometheus computes and alerts on."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from fastvlm_ops.core.config.reading import Definition, DefinitionFile

Text = Annotated[str, Field(min_length=1)]


class Rule(Definition):
    """An alert, or a series computed in advance. Whether its expression is right, ``promtool`` tells."""

    alert: Annotated[Text | None, Field(description="name of the alert")] = None
    record: Annotated[Text | None, Field(description="name of the series")] = None
    expr: Annotated[Text, Field(description="the expression, in PromQL")]
    for_: Annotated[Text | None, Field(alias="for", description="how long it must hold, as in 10m")] = None
    keep_firing_for: Annotated[Text | None, Field(description="how long it fires on, as in 5m")] = None
    labels: Annotated[dict[str, str], Field(default_factory=dict, description="labels to add")]
    annotations: Annotated[dict[str, str], Field(default_factory=dict, description="texts for people")]

    @model_validator(mode="after")
    def _is_one_of_two(self) -> Self:
        if (self.alert is None) == (self.record is None):
            raise ValueError("a rule has either the key alert or the key record")
        return self


class RuleGroup(Definition):
    """Rules that are computed one after the other."""

    name: Annotated[Text, Field(description="name of the group")]
    interval: Annotated[Text | None, Field(description="how often, as in 1m")] = None
    limit: Annotated[int | None, Field(ge=0, description="most series a rule may give; 0 for any")] = None
    rules: Annotated[
        tuple[Rule, ...], Field(strict=False, min_length=1, description="the rules, in their order")
    ]


class Rules(DefinitionFile):
    """A file of rules, as Prometheus reads it."""

    groups: Annotated[tuple[RuleGroup, ...], Field(strict=False, min_length=1, description="groups of rules")]
