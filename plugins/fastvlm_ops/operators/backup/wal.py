"""Watches the write-ahead log of a PostgreSQL component: nothing missing, nothing late, and how far back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fastvlm_ops import settings
from fastvlm_ops.core.config import load_components
from fastvlm_ops.hooks.operations_db import OperationsDatabaseHook
from fastvlm_ops.hooks.postgresql import PostgreSQLClusterHook
from fastvlm_ops.hooks.wal import received_component, wal_rules
from fastvlm_ops.operators.backup.shared import RepositoryOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

    from fastvlm_ops.core.backup.postgresql.wal_watch import WalState
    from fastvlm_ops.core.backup.wal_windows import WindowRow


class WalProblemError(Exception):
    """WAL is missing, late, or about to be lost; the message says what to do."""

    retryable = False


class ServerUnreachableError(Exception):
    """The server did not answer, so that it is not known how far the bucket is behind."""

    retryable = True


class WatchWalOperator(RepositoryOperator):
    """Prove what a component can be recovered to, record it, and fail where something is wrong.

    A server whose segment has waited longer than ``switch_wal_after_seconds`` is asked to finish it, where a
    transaction came after the last that is stored.

    A gap that a newer base backup has left behind cannot be mended: the first run that sees it fails, and
    those that follow only warn.

    :param component: name of a component of kind ``postgresql`` that has a slot (templated)
    :param operations_db_conn_id: connection of the operations database (templated)
    :param patience_seconds: how long the receiver may take to store what was finished, or to come back
        (templated)
    """

    template_fields: Sequence[str] = (
        "s3_conn_id",
        "component",
        "operations_db_conn_id",
        "patience_seconds",
    )

    def __init__(
        self,
        *,
        component: str,
        operations_db_conn_id: str = OperationsDatabaseHook.default_conn_name,
        patience_seconds: float = 60,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.component = component
        self.operations_db_conn_id = operations_db_conn_id
        self.patience_seconds = patience_seconds

    def work(self, context: Context) -> dict[str, Any]:
        """Return the window, the lag, and what is wrong."""
        from fastvlm_ops.core.backup.postgresql.wal_watch import watch_wal
        from fastvlm_ops.core.backup.wal_windows import record_window

        component, slot = received_component(load_components(settings.include_dir()), self.component)
        state = watch_wal(
            self.hook.open_repository(),
            component.name,
            PostgreSQLClusterHook(component.connection).url(),
            wal_rules(component, slot),
            patience_seconds=self.patience_seconds,
            tell=self.log.info,
        )
        with OperationsDatabaseHook(self.operations_db_conn_id).open_store() as store:
            before = record_window(store, state)
        self._tell(state)
        if problems := [*state.problems, *_news(state, before)]:
            raise WalProblemError("\n".join(problems))
        if state.unreachable is not None:
            raise ServerUnreachableError(f"{component.name}: {state.unreachable}")
        return state.as_dict()

    def subject(self) -> dict[str, Any]:
        """Name the component."""
        return {"component": self.component}

    def _tell(self, state: WalState) -> None:
        window = state.window
        for note in window.notes:
            self.log.warning("%s: %s", state.component, note)
        if window.gap is not None:
            self.log.warning("%s: %s", state.component, window.gap)
        self.log.info(
            "%s can be recovered to any moment from %s to %s; %s bytes of WAL, the last transaction %s s old,"
            " are not stored yet",
            state.component,
            window.recoverable_from or "(unknown)",
            window.recoverable_until or "(unknown)",
            "an unknown number of" if state.lag_bytes is None else state.lag_bytes,
            "?" if state.lag_seconds is None else round(state.lag_seconds),
        )


def _news(state: WalState, before: WindowRow | None) -> list[str]:
    """A gap behind the newest base backup that no run has seen before."""
    window = state.window
    if window.gap is None or window.is_broken:
        return []
    if before is not None and before.gap is not None:
        return []
    return [
        f"{state.component}: {window.gap}. The newest base backup is not hit. Nothing can mend it, and"
        " further runs will only warn; find out from the receiver's log, and the bucket's, why it is missing"
    ]
