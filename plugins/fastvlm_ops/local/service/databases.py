"""The pair of databases, as the supervisor sees it: asked by threads, since answers take time."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from fastvlm_ops.core.services.instances import Instance, ProcessIdentity
from fastvlm_ops.local.processes import ProcessStartError
from fastvlm_ops.local.service.database_pair import DatabasePair

_CHECK_SECONDS = 0.25
#: Older than this, what was found is not known any more.
_FRESH_SECONDS = 10.0

log = logging.getLogger("fastvlm_ops.supervisor")


@dataclass(frozen=True)
class _Found:
    healthy: bool
    detail: str
    at: float


class Databases:
    """The pair, watched. Nothing is started again or promoted by itself: that is for whoever fails it over.

    :param pair: which need not run yet
    """

    def __init__(self, pair: DatabasePair) -> None:
        self.pair = pair
        self._found: dict[str, _Found] = {}

    async def watch(self) -> None:
        """Check both, for ever."""
        await asyncio.gather(*map(self._watch, self.pair.names))

    async def do(self, action: Callable[[], object]) -> None:
        """Do something with the pair in a thread, and look at it again afterwards.

        :param action: that may take minutes
        """
        await asyncio.to_thread(action)
        for name in self.pair.names:
            await self._check(name)

    def instance(self, name: str) -> Instance:
        """Return one of them as it is now.

        :param name: of it
        """
        identity = None
        try:
            identity = self.pair.identity(name)
        except ProcessStartError:
            detail = "was not started yet"
        else:
            detail = "does not run"
        healthy: bool | None = False
        if identity is not None:
            found = self._found.get(name)
            healthy, detail = None, "was not checked lately"
            if found is not None and time.monotonic() - found.at < _FRESH_SECONDS:
                healthy, detail = found.healthy, found.detail
        return Instance(
            name=name,
            role="database_primary" if name == self.pair.primary() else "database_standby",
            address=self.pair.address(name) if identity else None,
            identity=ProcessIdentity.of(identity) if identity else None,
            healthy=healthy,
            detail=detail,
        )

    async def _watch(self, name: str) -> None:
        while True:
            await self._check(name)
            await asyncio.sleep(_CHECK_SECONDS)

    async def _check(self, name: str) -> None:
        began = time.monotonic()
        try:
            healthy, detail = await asyncio.to_thread(self.pair.health, name)
        except ProcessStartError as error:
            healthy, detail = False, str(error)
        except Exception as error:
            log.exception("a database could not be checked", extra={"instance": name})
            healthy, detail = False, f"could not be checked: {type(error).__name__}"
        before = self._found.get(name)
        self._found[name] = _Found(healthy, detail, began)
        if before is None or before.healthy != healthy:
            log.info("database", extra={"instance": name, "healthy": healthy, "detail": detail})
