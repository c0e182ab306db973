"""What the capacity operators share: objects in S3, the operations database, the hour that a run is about."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from fastvlm_ops import settings
from fastvlm_ops.core.config import Capacity, load_capacity
from fastvlm_ops.hooks.operations_db import OperationsDatabaseHook
from fastvlm_ops.hooks.s3 import BackupRepositoryHook
from fastvlm_ops.operators.shared import EvidenceOperator, as_of

if TYPE_CHECKING:
    from airflow.sdk import Context

    from fastvlm_ops.core.capacity.objects import CapacityObjects
    from fastvlm_ops.core.store import Store


class CapacityInputError(Exception):
    """What a run was asked for cannot be done."""

    retryable = False


class CapacityOperator(EvidenceOperator):
    """Base of operators that work on forecasts in S3 and in the operations database.

    :param s3_conn_id: connection of type ``fastvlm_s3``; its bucket and prefix hold ``capacity/`` (templated)
    :param operations_db_conn_id: connection of the operations database (templated)
    """

    template_fields: Sequence[str] = ("s3_conn_id", "operations_db_conn_id")

    def __init__(
        self,
        *,
        s3_conn_id: str = BackupRepositoryHook.default_conn_name,
        operations_db_conn_id: str = OperationsDatabaseHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.s3_conn_id = s3_conn_id
        self.operations_db_conn_id = operations_db_conn_id

    @property
    def definitions(self) -> Capacity:
        """``capacity.yaml``, as it is now."""
        return load_capacity(settings.include_dir())

    @property
    def objects(self) -> CapacityObjects:
        """Where histories and forecasts are."""
        from fastvlm_ops.core.capacity.objects import CapacityObjects

        hook = BackupRepositoryHook(self.s3_conn_id)
        return CapacityObjects(hook.get_client(), bucket=hook.settings.bucket, prefix=hook.settings.prefix)

    def open_store(self) -> Store:
        """Open the operations database. The caller closes it."""
        return OperationsDatabaseHook(self.operations_db_conn_id).open_store()


def as_of_hour(context: Context) -> datetime:
    """Return the full hour, in UTC, that a run is about.

    :param context: of the task
    :raises CapacityInputError: the Param ``as_of`` is no time, or is still to come
    """
    try:
        moment = as_of(context)
    except ValueError as error:
        raise CapacityInputError(
            f"as_of is {context['params'].get('as_of')!r}, which is no time ({error}); expected one like"
            " 2026-01-04T00:00:00+00:00"
        ) from None
    hour = moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    if hour > datetime.now(UTC):
        raise CapacityInputError(
            f"as_of is {hour.isoformat()}, which is still to come: nothing is known then"
        )
    return hour
