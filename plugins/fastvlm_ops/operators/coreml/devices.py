"""Runs models on one device."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastvlm_ops import settings
from fastvlm_ops.hooks.apple_device import AppleDeviceHook
from fastvlm_ops.hooks.coreml_models import models_root
from fastvlm_ops.links.coreml import CoreMLPageLink
from fastvlm_ops.operators.coreml.shared import CoreMLInputError, CoreMLOperator, chosen
from fastvlm_ops.operators.shared import run_key

if TYPE_CHECKING:
    from airflow.sdk import Context

    from fastvlm_ops.core.config import CoreMLDefinitions, ModelDefinition
    from fastvlm_ops.core.coreml.benchmarking import Work
    from fastvlm_ops.core.coreml.devices.interface import DeviceBackend
    from fastvlm_ops.core.coreml.golden import Golden
    from fastvlm_ops.core.coreml.packages import ModelPackage
    from fastvlm_ops.core.coreml.records import RunRecord
    from fastvlm_ops.core.coreml.turns import Accepted
    from fastvlm_ops.core.store import Store
    from fastvlm_ops.core.store.artefacts import ArtefactStore


class PlanBenchmarksOperator(CoreMLOperator):
    """Say what one device has to run: every model that could be inspected, with each of its compute units.

    Belongs after the inspection with ``trigger_rule="all_done"``: a broken package keeps no other from being
    measured. Returns one entry a model and compute unit, to map over; none where the form leaves the device
    out, and then nothing is run on it.

    :param device: its name in ``coreml.yaml`` (templated)
    :param models: outputs of :class:`InspectModelOperator` (templated)
    :param devices: names of the devices that are wanted; all where empty (templated)
    """

    template_fields: Sequence[str] = ("s3_conn_id", "operations_db_conn_id", "device", "models", "devices")

    def __init__(self, *, device: str, models: Any, devices: Any = (), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.device = device
        self.models = models
        self.devices = devices

    def work(self, context: Context) -> list[dict[str, Any]]:
        """Plan it."""
        definitions = self.definitions
        device = definitions.device(self.device)
        if self.device not in chosen(
            self.devices or (), [one.name for one in definitions.devices], "devices"
        ):
            self.log.info("%s is left out", self.device)
            return []
        models = list(self.models or ())
        if not models:
            raise CoreMLInputError("no package could be inspected, so that there is nothing to run")
        return [
            {"model": one["model"], "version": one["version"], "digest": one["digest"], "compute_unit": unit}
            for one in models
            for unit in definitions.units_of(definitions.model(one["model"]), device)
        ]


class BenchmarkModelOperator(CoreMLOperator):
    """Run one model on one device with one compute unit, and record what was measured.

    Trouble of a device is a result, which is recorded: the task succeeds, and what was said of it fails the
    run later, beside the verdicts of the other devices. What an earlier attempt has measured in full stands.

    :param device: its name in ``coreml.yaml`` (templated)
    :param planned: entry of :class:`PlanBenchmarksOperator` (templated)
    :param sessions: how many; ``sessions.count`` of ``coreml.yaml`` where None (templated)
    """

    template_fields: Sequence[str] = (
        "s3_conn_id",
        "operations_db_conn_id",
        "device",
        "planned",
        "sessions",
    )
    operator_extra_links = (CoreMLPageLink(),)

    def __init__(self, *, device: str, planned: Any, sessions: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.device = device
        self.planned = planned
        self.sessions = sessions

    def work(self, context: Context) -> dict[str, Any]:
        """Measure, unless that was done."""
        from fastvlm_ops.core.coreml.storing import COMPLETE, RunId, find_run, record_run

        run = RunId(run_key(context), self.device, self.planned["model"], self.planned["compute_unit"])
        with self.open_results() as (store, artefacts):
            found = find_run(store, run)
            new = found is None or found["status"] != COMPLETE
            if new:
                record, golden = self._measure(store, artefacts, run.run_key)
                new = record_run(store, artefacts, record, golden_id=golden.id if golden else "")
                found = find_run(store, run)
        if found is None:
            raise CoreMLInputError(f"{run} was recorded, and is gone; was the database put back meanwhile?")
        self.log.info("%s: p50 %s ms", found["status"], found["latency_p50_ms"])
        return {
            **self.subject(),
            "version": found["version"],
            "status": found["status"],
            "failure_code": found["failure_code"],
            "sessions": found["sessions"],
            "latency_p50_ms": found["latency_p50_ms"],
            "artefact_uri": found["artefact_uri"],
            "reused": not new,
        }

    def subject(self) -> dict[str, Any]:
        """Name the device, the model and the compute unit."""
        planned = self.planned
        return {"device": self.device, "model": planned["model"], "compute_unit": planned["compute_unit"]}

    def _measure(self, store: Store, artefacts: ArtefactStore, key: str) -> tuple[RunRecord, Golden | None]:
        from fastvlm_ops.core.coreml.baselines import load_baseline_of
        from fastvlm_ops.core.coreml.benchmarking import benchmark
        from fastvlm_ops.core.coreml.judging import wanted_sessions

        definitions = self.definitions
        work = self._work(store, definitions, key)
        rules = definitions.sessions_on(definitions.device(self.device))
        if self.sessions is not None:
            rules = rules.model_copy(update={"count": int(self.sessions)})

        def wanted(first: RunRecord) -> int:
            baseline = load_baseline_of(store, artefacts, first, definitions.compare, golden_id="")
            return wanted_sessions(first, baseline, definitions.compare)

        with tempfile.TemporaryDirectory(dir=settings.scratch_dir(), prefix="coreml-") as scratch:
            record = benchmark(
                self._backend(definitions),
                work,
                rules,
                scratch=Path(scratch),
                wanted=wanted,
                progress=self.log.info,
            )
        return record, work.golden

    def _work(self, store: Store, definitions: CoreMLDefinitions, key: str) -> Work:
        from fastvlm_ops.core.coreml.benchmarking import Work
        from fastvlm_ops.core.coreml.packages import find_packages
        from fastvlm_ops.core.coreml.storing import find_inspection

        planned, root = self.planned, models_root(definitions)
        model = definitions.model(planned["model"])
        packages = find_packages(model, root)
        package = next((one for one in packages if one.version == planned["version"]), None)
        if package is None or package.digest != planned["digest"]:
            found = "is not there" if package is None else "is another one"
            raise CoreMLInputError(
                f"version {planned['version']} of {model.name} {found} on this worker, below {root}; copy the"
                " package that was inspected to it, and clear this task"
            )
        return Work(
            run_key=key,
            device=self.device,
            model=model.name,
            version=package.version,
            digest=package.digest,
            package=package.path,
            compute_unit=planned["compute_unit"],
            golden=golden_of(model, package.path, package.version, root),
            inspection=find_inspection(store, package.digest),
            accepted=self._accepted(store, packages, package.digest, key),
        )

    def _accepted(
        self, store: Store, packages: Sequence[ModelPackage], digest: str, key: str
    ) -> Accepted | None:
        """The version in the baseline, where it is another one that is still on this worker."""
        from fastvlm_ops.core.coreml.baselines import Subject, newest_accepted
        from fastvlm_ops.core.coreml.turns import Accepted

        subject = Subject(self.device, self.planned["model"], self.planned["compute_unit"])
        version, accepted = newest_accepted(store, subject, without=key) or ("", digest)
        if accepted == digest:
            return None
        found = (one for one in packages if one.version == version and one.digest == accepted)
        return next((Accepted(version, accepted, one.path) for one in found), None)

    def _backend(self, definitions: CoreMLDefinitions) -> DeviceBackend:
        from fastvlm_ops.core.coreml.devices.registry import make_backend

        definition = definitions.device(self.device)
        if definition.connection is None:
            return make_backend(definition, conditions=definitions.conditions)
        return AppleDeviceHook(definition.connection).backend(definition, definitions.conditions)


def golden_of(model: ModelDefinition, package: Path, version: str, root: Path) -> Golden | None:
    """Return the golden inputs and outputs of a model; None where there are none and none were asked for.

    :param model: of ``coreml.yaml``
    :param package: the package
    :param version: of it
    :param root: what relative paths start from
    :raises GoldenError: they are damaged, or ``coreml.yaml`` says where they are and they are not there
    """
    from fastvlm_ops.core.coreml.golden import DESCRIPTION, load_golden

    folder = model.golden_folder(package, version, root)
    if model.golden is None and not (folder / DESCRIPTION).exists():
        return None
    return load_golden(folder)
