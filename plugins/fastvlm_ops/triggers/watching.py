"""What watchers of something that changes have in common: one event for each burst of changes, none lost."""

from __future__ import annotations

import asyncio
import time
from abc import abstractmethod
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseEventTrigger, TriggerEvent

#: Key in an asset's state store: the signature of what the last run has looked at.
SIGNATURE_KEY = "signature"
#: What the signature of something that cannot be read begins with.
UNREADABLE = "unreadable: "


class ChangeTrigger(BaseEventTrigger):
    """Look at something again and again, and fire once for each burst of changes.

    What it compares with is kept in the asset's state store and written by the task that has dealt with the
    change, so nothing is lost while no triggerer runs, and nothing fires when it starts anew. A change that
    no run has recorded (since it failed) is told again after a while.

    :param poll_seconds: between two looks
    :param quiet_seconds: for which it must stand still after a change
    :param remind_seconds: after which a change that no run has recorded is told again
    """

    def __init__(
        self, poll_seconds: float = 5, quiet_seconds: float = 2, remind_seconds: float = 900
    ) -> None:
        super().__init__()
        self.poll_seconds = poll_seconds
        self.quiet_seconds = quiet_seconds
        self.remind_seconds = remind_seconds
        self._problem = ""

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what makes an equal trigger."""
        names = ("poll_seconds", "quiet_seconds", "remind_seconds")
        values = {**self.subject(), **{name: getattr(self, name) for name in names}}
        return f"{type(self).__module__}.{type(self).__name__}", values

    @abstractmethod
    def subject(self) -> dict[str, Any]:
        """Return the arguments that say what is watched; they are in each event too."""

    @abstractmethod
    def name(self) -> str:
        """Return what is watched, for messages."""

    @abstractmethod
    def signature(self) -> str:
        """Return a text that differs when there is a change. Called in a thread of its own.

        One that begins with ``UNREADABLE`` is a change too: the run that it starts fails and says so.
        """

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield an event for each change, until cancelled."""
        known: str | None = None
        checked_at = 0.0
        while True:
            signature = await self._settled(known)
            if signature is not None and (signature != known or self._is_due(signature, checked_at)):
                known, checked_at = signature, time.monotonic()
                if signature != await self._recorded():
                    self.log.info("%s has changed", self.name())
                    yield TriggerEvent({**self.subject(), "signature": signature})
            await asyncio.sleep(self.poll_seconds)

    def _is_due(self, signature: str, checked_at: float) -> bool:
        """Whether to look again if a run has recorded the state; none ever records an unreadable one."""
        return not signature.startswith(UNREADABLE) and time.monotonic() - checked_at >= self.remind_seconds

    async def _settled(self, known: str | None) -> str | None:
        """Return the signature, once two looks in a row agree; None where it cannot be told."""
        signature = await self._look()
        while signature is not None and signature != known:
            await asyncio.sleep(self.quiet_seconds)
            before, signature = signature, await self._look()
            if signature == before:
                break
        return signature

    async def _look(self) -> str | None:
        try:
            signature = await asyncio.to_thread(self.signature)
        except Exception as error:  # a file in include/ that is broken: the DAG says so, in its own place
            problem = f"{type(error).__name__}: {error}"
            if problem != self._problem:
                self.log.warning("%s cannot be watched. %s", self.name(), problem)
            self._problem = problem
            return None
        self._problem = ""
        return signature

    async def _recorded(self) -> str | None:
        """Return the signature that the last successful run has recorded; None where there is none."""
        if self.asset_state_store is None:
            return None
        return await self.asset_state_store.aget(SIGNATURE_KEY)
