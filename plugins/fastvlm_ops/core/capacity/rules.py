"""What a recommendation is made from, and what it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

Action = Literal["none", "scale_up", "scale_down", "insufficient_data", "stale"]
AppliedState = Literal["planned", "approved", "rejected"]


@dataclass(frozen=True)
class Thresholds:
    """Of what is in use, in percent of what there is.

    :param up: above it, replicas are added
    :param down: below it, and the other resources too, replicas may go
    """

    up: float
    down: float

    def __post_init__(self) -> None:
        if not 0 < self.down < self.up <= 100:
            raise ValueError(
                f"thresholds are down {self.down:g} and up {self.up:g}: 0 < down < up <= 100 must hold"
            )


def _seed_thresholds() -> dict[str, Thresholds]:
    return {"cpu": Thresholds(70, 30), "memory": Thresholds(80, 40), "requests": Thresholds(80, 30)}


@dataclass(frozen=True)
class ScalingRules:
    """When and how far to scale.

    :param thresholds: by resource
    :param largest_step: factor that replicas are multiplied or divided by at most
    :param minimum: of replicas
    :param maximum: of replicas
    :param target_share: of the up thresholds that more replicas aim at, so that they do not end at their edge
    :param settled_share: of the up thresholds that fewer replicas may reach at the most
    :param agreeing_runs: this many runs in a row must want fewer replicas, before it is recommended
    :param cool_down_days: after any change, or a rejection, without a recommendation to scale down
    :param heat_days: after more replicas were wanted, without going back to as few as there were then
    :param minimum_history_days: of each metric, for scaling down
    :raises ValueError: naming the member that cannot be right
    """

    thresholds: Mapping[str, Thresholds] = field(default_factory=_seed_thresholds)
    largest_step: int = 2
    minimum: int = 1
    maximum: int = 10
    target_share: float = 0.9
    settled_share: float = 0.8
    agreeing_runs: int = 3
    cool_down_days: float = 3
    heat_days: float = 14
    minimum_history_days: float = 14

    def __post_init__(self) -> None:
        for resource in _seed_thresholds():
            if resource not in self.thresholds:
                raise ValueError(f"thresholds lack {resource!r}")
        if not 1 <= self.minimum <= self.maximum:
            raise ValueError(
                f"replicas are {self.minimum} to {self.maximum}: 1 <= minimum <= maximum must hold"
            )
        for name in ("target_share", "settled_share"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be above 0 and at most 1")
        if self.largest_step < 2 or self.agreeing_runs < 1 or self.cool_down_days < 0:
            raise ValueError(
                "largest_step must be at least 2, agreeing_runs at least 1, cool_down_days at least 0:"
                f" they are {self.largest_step}, {self.agreeing_runs} and {self.cool_down_days}"
            )


@dataclass(frozen=True)
class ServiceState:
    """What is known of a service besides its needs.

    :param service: its name
    :param as_of: what the recommendation is about, aware
    :param replicas: that run; None where it is not known
    :param capacities: of each resource, that these replicas have, in the unit of its needs (100 where that is
        percent); None or missing where it is not known: the resource is then not judged
    :param statuses: of the forecast of each resource, as in ``ok`` or ``stale``; missing: there is no metric
    :param history_days: of each resource
    """

    service: str
    as_of: datetime
    replicas: int | None
    capacities: Mapping[str, float | None]
    statuses: Mapping[str, str]
    history_days: Mapping[str, float]

    def __post_init__(self) -> None:
        if self.as_of.utcoffset() is None:
            raise ValueError(
                f"as_of of {self.service!r} is {self.as_of.isoformat()}: it must have a time zone"
            )


@dataclass(frozen=True)
class Recommendation:
    """What to do about a service.

    :param replicas_wanted: after the change; below ``replicas_now`` without ``scale_down`` where fewer would
        do, but something speaks against it yet; None where it is not known
    :param reason: in words
    :param replicas_needed: whatever the limits; None where it is not known
    :param capped: whether more are needed than the limits allow
    :param trigger: the resource that decided; empty where none did
    """

    service: str
    as_of: datetime
    action: Action
    replicas_now: int | None
    replicas_wanted: int | None
    reason: str
    applied_state: AppliedState = "planned"
    replicas_needed: int | None = None
    capped: bool = False
    trigger: str = ""

    @property
    def wants_fewer(self) -> bool:
        """Whether fewer replicas would do, recommended or not."""
        known = self.replicas_now is not None and self.replicas_wanted is not None
        return known and self.replicas_wanted < self.replicas_now  # type: ignore[operator]

    def decision(self) -> dict[str, Any]:
        """Return the kit's own shape of a scaling decision, ready for JSON."""
        parameters: dict[str, Any] = {}
        if self.action in ("scale_up", "scale_down"):
            parameters = {"target_replicas": self.replicas_wanted, "trigger_metric": self.trigger}
        return {
            "service": self.service,
            "action": self.action,
            "reasoning": self.reason,
            "parameters": parameters,
        }
