"""How a service is looked at and controlled, whatever runs it."""

from __future__ import annotations

from typing import Literal, Protocol

from fastvlm_ops.core.services.instances import ServiceView

Disturbance = Literal["latency", "reset", "black_hole", "refuse"]


class ServiceControlError(Exception):
    """The service, or what controls it, did not answer, or refused.

    :param message: for people
    :param retryable: whether it may pass by itself
    """

    def __init__(self, message: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.retryable = retryable


class ServiceControl(Protocol):
    """What a service can be told. Every method is bounded in time, idempotent, and raises
    :class:`ServiceControlError`.
    """

    @property
    def address(self) -> str:
        """Where it is reached, without secrets: a file of a socket, or a URL. Enough to make it anew."""

    def view(self) -> ServiceView:
        """Return the service as it is now."""

    def start(self, instance: str) -> None:
        """Start an instance, unless it runs."""

    def stop(self, instance: str) -> None:
        """Stop an instance, so that nothing starts it again by itself; one that hangs is killed."""

    def restart(self, instance: str) -> None:
        """Stop an instance and start it."""

    def disturb(self, link: str, disturbance: Disturbance, *, latency_ms: int = 0) -> None:
        """Disturb a TCP link, instead of how it was disturbed before."""

    def soothe(self, link: str) -> None:
        """Pass on everything on a TCP link again."""

    def promote(self, instance: str) -> None:
        """Make a standby database the primary, once the old primary is known to be gone."""

    def rejoin(self, instance: str) -> None:
        """Make an old primary a standby of the present one, whatever it wrote after they parted."""
