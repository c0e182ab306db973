"""Operations pages inside Airflow's UI. Importing this imports nothing else: see :class:`LazyApp`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

TITLE = "Operations"
URL_PREFIX = "/fastvlm-ops"
"""Below the root of Airflow's api-server."""
URL_ROUTE = "operations"
"""Airflow shows the pages in a frame at ``/plugin/<this>``."""
ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 24 24' fill='none'"
    " stroke='%2338a169' stroke-width='2' stroke-linecap='round' stroke-linejoin='round'%3E"
    "%3Cpath d='M12 3 4 6v6c0 4.4 3.4 7.8 8 9 4.6-1.2 8-4.6 8-9V6z'/%3E"
    "%3Cpath d='m8 12 3 3 5-6'/%3E%3C/svg%3E"
)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class LazyApp:
    """The pages' ASGI application, built when the first request comes.

    The plugin file is imported by schedulers, workers and triggerers too, which never serve a page.
    """

    def __init__(self) -> None:
        self._app: Any = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._app is None:
            from fastvlm_ops.ui.app import create_app

            self._app = create_app()
        await self._app(scope, receive, send)
