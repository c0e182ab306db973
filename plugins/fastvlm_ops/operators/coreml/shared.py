"""What the Core ML operators share: definitions, the operations database, raw samples in S3."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from fastvlm_ops import settings
from fastvlm_ops.core.config import CoreMLDefinitions, load_coreml
from fastvlm_ops.hooks.operations_db import OperationsDatabaseHook
from fastvlm_ops.hooks.s3 import BackupRepositoryHook
from fastvlm_ops.operators.shared import EvidenceOperator

if TYPE_CHECKING:
    from fastvlm_ops.core.store import Store
    from fastvlm_ops.core.store.artefacts import ArtefactStore


class CoreMLInputError(Exception):
    """What a run was asked for cannot be done."""

    retryable = False


class CoreMLOperator(EvidenceOperator):
    """Base of operators that work on benchmarks.

    :param s3_conn_id: connection of type ``fastvlm_s3``, whose bucket holds the raw samples (templated)
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
    def definitions(self) -> CoreMLDefinitions:
        """``coreml.yaml``, as it is now."""
        return load_coreml(settings.include_dir())

    def open_store(self) -> Store:
        """Open the operations database. The caller closes it."""
        return OperationsDatabaseHook(self.operations_db_conn_id).open_store()

    @contextmanager
    def open_results(self) -> Iterator[tuple[Store, ArtefactStore]]:
        """Open the operations database and where its raw samples are, for as long as they are needed."""
        from fastvlm_ops.core.store.artefacts import ArtefactStore

        hook = BackupRepositoryHook(self.s3_conn_id)
        with self.open_store() as store:
            place = hook.settings
            yield store, ArtefactStore(store, hook.get_client(), bucket=place.bucket, prefix=place.prefix)


def chosen(wanted: Sequence[str], known: Sequence[str], what: str) -> list[str]:
    """Return the names that a form asks for; all where it asks for none.

    :param wanted: of the form
    :param known: of ``coreml.yaml``, in order
    :param what: that they are names of, in plural
    :raises CoreMLInputError: one of them is not known
    """
    if unknown := sorted(set(wanted) - set(known)):
        raise CoreMLInputError(
            f"{what}: coreml.yaml has none named {', '.join(map(repr, unknown))}; it has {', '.join(known)}"
        )
    return [name for name in known if not wanted or name in wanted]
