"""Prunes the repository: plans what is kept, asks, forgets backups, and removes what no backup needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from fastvlm_ops import settings
from fastvlm_ops.core.config import Components, include_hash, load_components
from fastvlm_ops.hooks.operations_db import OperationsDatabaseHook
from fastvlm_ops.hooks.s3 import BackupRepositoryHook
from fastvlm_ops.links.backup import PruningPageLink
from fastvlm_ops.operators.approving import AskPersonOperator
from fastvlm_ops.operators.backup.shared import RepositoryOperator
from fastvlm_ops.operators.shared import as_of, run_key

if TYPE_CHECKING:
    from airflow.sdk import Context

    from fastvlm_ops.core.backup.collecting import CollectionPlan
    from fastvlm_ops.core.backup.forgetting import ForgetPlan
    from fastvlm_ops.core.backup.repository import Repository

_IDS_LISTED = 100
_SETS_ASKED = 50
_SETS_SHOWN = 2000


class PruningRefusedError(Exception):
    """A guard keeps backups from being removed."""

    retryable = False


class PlanPruningOperator(RepositoryOperator):
    """Plan what is kept, forgotten and removed, by ``retention`` and ``pruning`` in ``components.yaml``.

    Removes nothing. Runs of the schedule are to be applied where ``pruning.enabled`` is true, and ask nobody;
    others where they are no dry run, once somebody has approved it. Belongs behind the verification with
    ``trigger_rule="all_done"``: a plan is shown also where it is refused.

    :param verification: output of :class:`VerifyRepositoryOperator`; None when it failed (templated)
    :param dry_run: whether a run that a person started only plans (templated)
    :param despite_damage: whether it goes on though damage is known, once somebody has approved it (templated)
    :param operations_db_conn_id: connection of the operations database (templated)
    """

    template_fields: Sequence[str] = (
        "s3_conn_id",
        "operations_db_conn_id",
        "verification",
        "dry_run",
        "despite_damage",
    )
    operator_extra_links = (PruningPageLink(),)

    def __init__(
        self,
        *,
        verification: Any,
        dry_run: bool = True,
        despite_damage: bool = False,
        operations_db_conn_id: str = OperationsDatabaseHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.verification = verification
        self.dry_run = dry_run
        self.despite_damage = despite_damage
        self.operations_db_conn_id = operations_db_conn_id

    def work(self, context: Context) -> dict[str, Any]:
        """Return what would be done, and whether it is to be."""
        include_dir = settings.include_dir()
        definitions = load_components(include_dir)
        is_scheduled = context["dag_run"].run_type == "scheduled"
        dry_run = not definitions.pruning.enabled if is_scheduled else bool(self.dry_run)
        repository = self.hook.open_repository()
        forget = plan_forget(repository, definitions, as_of(context))
        self.log.info("%s", forget.table())
        collection, problem = self._plan_collection(repository, definitions, forget)
        refusals = [forget.refusal, problem or (collection and collection.refusal)]
        if not (self.despite_damage and not is_scheduled):
            refusals.insert(0, damage_refusal(self.verification, repository))
        reason = "\n".join(one for one in refusals if one) or None
        plan = outline(forget, collection)
        needed = bool(plan["forgotten_ids"] or plan["snapshot_ids"] or plan["collection"]["packs"])
        status = "refused" if reason else "planned" if dry_run else "waiting"
        result = {
            **plan,
            "status": status,
            "reason": reason,
            "dry_run": dry_run,
            "apply": status == "waiting",
            "ask": status == "waiting" and not is_scheduled and needed,
            "damage": known_damage(self.verification, repository),
            "repository_id": repository.repository_id,
            "include_hash": include_hash(include_dir),
        }
        self._tell(result)
        self._record(context, result, forget, collection)
        return result
