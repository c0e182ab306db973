"""What the operators of drills share: the plan, what is around it, and steps that leave a row."""

from __future__ import annotations

import socket
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from fastvlm_ops import settings
from fastvlm_ops.hooks.operations_db import OperationsDatabaseHook
from fastvlm_ops.hooks.postgresql import PostgreSQLClusterHook
from fastvlm_ops.hooks.s3 import BackupRepositoryHook
from fastvlm_ops.links.disaster_recovery import DrillPageLink
from fastvlm_ops.operators.shared import EvidenceOperator, as_of, run_key

if TYPE_CHECKING:
    from airflow.sdk import Context

    from fastvlm_ops.core.disaster_recovery.plan import DrillPlan, StepResult
    from fastvlm_ops.core.disaster_recovery.surroundings import Surroundings
    from fastvlm_ops.core.services.control import ServiceControl
    from fastvlm_ops.core.services.instances import ServiceView
    from fastvlm_ops.core.store import Store

#: What a step that is stuck leaves the lease for, beyond the time that its parts may take.
LEASE_MARGIN = timedelta(minutes=10)
_FAILED = ("failed", "inconclusive", "aborted", "refused")


class DrillStepError(Exception):
    """A step of a drill did not pass."""

    retryable = False


class DrillOperator(EvidenceOperator):
    """Base of operators that work on a drill, by its plan in the operations database.

    :param s3_conn_id: connection of type ``fastvlm_s3`` (templated)
    :param operations_db_conn_id: connection of the operations database (templated)
    """

    template_fields: Sequence[str] = ("s3_conn_id", "operations_db_conn_id")
    operator_extra_links = (DrillPageLink(),)

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

    def open_store(self) -> Store:
        """Return the operations database, to be closed."""
        return OperationsDatabaseHook(self.operations_db_conn_id).open_store()

    def surroundings(
        self, context: Context, store: Store, folder: Path, control: ServiceControl | None, target: Any
    ) -> Surroundings:
        """Return what the steps of a drill work with.

        :param context: of the task
        :param store: the operations database
        :param folder: of the drill
        :param control: of the service; None where the backups are the target
        :param target: of the scenario
        """
        from fastvlm_ops.core.config import load_components
        from fastvlm_ops.core.disaster_recovery.surroundings import Surroundings

        hook = BackupRepositoryHook(self.s3_conn_id)
        return Surroundings(
            control=control,
            store=store,
            open_repository=lambda: hook.open_repository(chunks=True),
            open_repository_through=lambda endpoint: self._through(endpoint),
            database_dsn=self._database_dsn(control, target),
            components=lambda: load_components(settings.include_dir()),
            kit_dir=settings.kit_dir(),
            postgresql_bin_dir=settings.postgresql_bin_dir(),
            scratch=folder / "scratch",
            drill_dir=settings.drill_dir(),
            say=self.log.info,
            as_of=as_of(context),
            inspect_package=_inspect_package,
            cluster_database=_cluster_database,
        )

    def around(self, context: Context, store: Store, plan: DrillPlan) -> Surroundings:
        """Return the surroundings of a drill that is planned.

        :param context: of the task
        :param store: the operations database
        :param plan: of the drill
        """
        from fastvlm_ops.core.disaster_recovery.planning import scenario_of
        from fastvlm_ops.core.disaster_recovery.watching import Watch
        from fastvlm_ops.core.services.connecting import connect_control

        control = connect_control(plan.control) if plan.control else None
        target = scenario_of(plan).target
        at = self.surroundings(context, store, Path(plan.folder), control, target)
        return replace(at, pause=Watch(plan, at).pause)

    def _through(self, endpoint: str) -> Any:
        hook = BackupRepositoryHook(self.s3_conn_id)
        hook.__dict__["settings"] = replace(hook.settings, endpoint_url=endpoint)
        return hook.open_repository(chunks=True)

    def _database_dsn(self, control: ServiceControl | None, target: Any) -> Callable[[str], str] | None:
        if control is None or target.kind != "service":
            return None
        from fastvlm_ops.hooks.service import ServiceHook

        conn_id = ServiceHook(target.connection).settings.database_conn_id
        if conn_id is None:
            return None
        return lambda instance: database_dsn(conn_id, control.view(), instance)


def _inspect_package(path: Path) -> object:
    """Parse a Core ML package, which takes coremltools; raises what is wrong with it."""
    from fastvlm_ops.core.coreml.inspecting import inspect_package

    return inspect_package(path)


def _cluster_database(conn_id: str) -> str:
    """Return the database that a connection to a cluster of PostgreSQL leads to."""
    return PostgreSQLClusterHook(conn_id).url().database or "postgres"


class DrillStepOperator(DrillOperator):
    """Base of operators of which each is a step of a drill: what it finds is recorded, whatever becomes of
    the task, and fails it unless all passed.
    """

    #: Of ``core.disaster_recovery.plan.STEPS``.
    step: ClassVar[str]
    #: Whether it may only be done by the drill that has the lease.
    needs_lease: ClassVar[bool] = True

    def work(self, context: Context) -> dict[str, Any]:
        """Return the status and the summary of the step."""
        from fastvlm_ops.core.disaster_recovery.drills import read_plan

        with self.open_store() as store:
            plan = read_plan(store, run_key(context))
            begun = datetime.now(UTC)
            result = self._result(context, store, plan)
            self.record(store, plan, result, begun)
        self.log.info("%s: %s", result.status, result.summary)
        if result.status in _FAILED:
            raise DrillStepError(
                f"{result.step} {result.status}: {'; '.join(result.problems) or result.summary}"
            )
        return {"status": result.status, "summary": result.summary}

    @abstractmethod
    def carry_out(self, plan: DrillPlan, at: Surroundings) -> StepResult:
        """Do the step.

        :param plan: of the drill
        :param at: its surroundings
        """

    @abstractmethod
    def would_do(self, plan: DrillPlan) -> list[str]:
        """Return what the step does, for a dry run.

        :param plan: of the drill
        """

    def lasts(self, plan: DrillPlan) -> timedelta:
        """Return how long the step may take.

        :param plan: of the drill
        """
        parts = plan.definition["steps"].get(self.step) or ()
        return timedelta(seconds=sum(part.get("within_seconds", 0.0) for part in parts))

    def record(self, store: Store, plan: DrillPlan, result: StepResult, begun: datetime) -> None:
        """Record what the step has found.

        :param store: the operations database
        :param plan: of the drill
        :param result: what was found
        :param begun: when the step began
        """
        from fastvlm_ops.core.disaster_recovery.drills import record_step

        record_step(store, plan.run_key, result, started_at=begun, finished_at=datetime.now(UTC))

    def _result(self, context: Context, store: Store, plan: DrillPlan) -> StepResult:
        from fastvlm_ops.core.disaster_recovery.errors import (
            DrillAbortedError,
            DrillRefusedError,
            InconclusiveError,
        )
        from fastvlm_ops.core.disaster_recovery.leasing import keep_lease

        if plan.dry_run:
            lines = self.would_do(plan)
            for line in lines:
                self.log.info("would do: %s", line)
            return self._ended("dry_run", "; ".join(lines) or "nothing")
        check_host(plan)
        try:
            if self.needs_lease:
                keep_lease(store, plan.run_key, self.lasts(plan) + LEASE_MARGIN)
            return self.carry_out(plan, self.around(context, store, plan))
        except DrillRefusedError as error:
            return self._ended("refused", error)
        except DrillAbortedError as error:
            return self._ended("aborted", error)
        except InconclusiveError as error:
            return self._ended("inconclusive", error)

    def _ended(self, status: Any, why: object) -> StepResult:
        from fastvlm_ops.core.disaster_recovery.plan import StepResult

        problems = () if status == "dry_run" else (str(why),)
        return StepResult(step=self.step, status=status, summary=str(why), problems=problems)


def database_dsn(conn_id: str, view: ServiceView, name: str) -> str:
    """Return the libpq address of a database instance: user, password and database are the connection's,
    host and port the instance's.

    :param conn_id: of a connection of type ``postgres``
    :param view: of the service
    :param name: of the instance
    :raises DrillStepError: the instance has no address now
    """
    address = view.instance(name).address
    if not address:
        raise DrillStepError(f"{name} has no address: it does not run")
    host, _, port = address.rpartition(":")
    url = PostgreSQLClusterHook(conn_id).url().set(drivername="postgresql", host=host, port=int(port))
    return url.render_as_string(hide_password=False)


def check_host(plan: DrillPlan) -> None:
    """Check that a task runs where its drill was planned.

    :param plan: of the drill
    :raises DrillStepError: it does not: processes, files and clocks are those of another machine
    """
    here = socket.gethostname()
    if plan.host != here:
        raise DrillStepError(
            f"the drill was planned on {plan.host}, and this task runs on {here}: set [fastvlm_ops]"
            " drill_queue to a queue that one worker serves"
        )
