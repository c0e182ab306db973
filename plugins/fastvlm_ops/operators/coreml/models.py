"""Finds the newest package of each model, and looks into it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset

from fastvlm_ops.hooks.coreml_models import models_root
from fastvlm_ops.operators.coreml.shared import CoreMLOperator, chosen
from fastvlm_ops.operators.shared import record_signature
from fastvlm_ops.triggers.coreml import PACKAGES_ASSET

if TYPE_CHECKING:
    from airflow.sdk import Context

    from fastvlm_ops.core.config import CoreMLDefinitions, ModelDefinition


class DiscoverModelsOperator(CoreMLOperator):
    """Find the newest package of each model of ``coreml.yaml``.

    Returns one entry a model, to map over: its name, the version and the path. A model without a package, or
    whose packages cannot be told apart, has an entry too: looking into it fails and says so, and takes no
    other model with it.

    :param models: names of those that are wanted; all where empty (templated)
    """

    template_fields: Sequence[str] = ("s3_conn_id", "operations_db_conn_id", "models")

    def __init__(self, *, models: Any = (), **kwargs: Any) -> None:
        # Gives access to what is kept about the asset. A reference, since only the schedule has its watcher.
        super().__init__(inlets=[Asset.ref(name=PACKAGES_ASSET)], **kwargs)
        self.models = models

    def work(self, context: Context) -> list[dict[str, Any]]:
        """Find them."""
        definitions = self.definitions
        root = models_root(definitions)
        names = chosen(self.models or (), [model.name for model in definitions.models], "models")
        signature = self._signature(definitions, root)  # first: a later change shows in the next one
        found = [self._newest(definitions.model(name), root) for name in names]
        # Where some were left out, they are still to be looked at.
        if signature is not None and len(names) == len(definitions.models):
            record_signature(context, PACKAGES_ASSET, signature)
        return found

    def _signature(self, definitions: CoreMLDefinitions, root: Path) -> str | None:
        from fastvlm_ops.core.coreml.errors import PackageRefusedError
        from fastvlm_ops.core.coreml.watching import packages_signature

        try:
            return packages_signature(definitions, root)
        except (OSError, PackageRefusedError) as error:
            self.log.warning("The packages cannot be told apart: %s", error)
            return None

    def _newest(self, model: ModelDefinition, root: Path) -> dict[str, Any]:
        from fastvlm_ops.core.coreml.errors import PackageRefusedError
        from fastvlm_ops.core.coreml.packages import find_packages

        nothing = {"model": model.name, "version": None, "path": str(root / model.path)}
        try:
            packages = find_packages(model, root)
        except PackageRefusedError as error:
            return {**nothing, "path": error.path, "problem": error.reason}
        if not packages:
            return {**nothing, "problem": "there is no package of the model; put one there"}
        newest = packages[0]
        self.log.info("%s: version %s of %d: %s", model.name, newest.version, len(packages), newest.path)
        return {"model": model.name, "version": newest.version, "path": str(newest.path)}


class InspectModelOperator(CoreMLOperator):
    """Look into a package without running it, and record what it is.

    :param package: entry of :class:`DiscoverModelsOperator` (templated)
    """

    template_fields: Sequence[str] = ("s3_conn_id", "operations_db_conn_id", "package")

    def __init__(self, *, package: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.package = package

    def work(self, context: Context) -> dict[str, Any]:
        """Inspect it."""
        from fastvlm_ops.core.coreml.errors import PackageRefusedError
        from fastvlm_ops.core.coreml.inspecting import inspect_package
        from fastvlm_ops.core.coreml.packages import digest
        from fastvlm_ops.core.coreml.storing import record_model

        path = Path(self.package["path"])
        if problem := self.package.get("problem"):
            raise PackageRefusedError(path, problem)
        inspection = inspect_package(path)
        identity = {"version": self.package["version"], "digest": digest(path)}
        with self.open_store() as store:
            record_model(store, name=self.package["model"], inspection=inspection.as_dict(), **identity)
        self.log.info(
            "%s: %d bytes, %d parameters, %s FLOPs, compressed %s",
            path.name,
            inspection.size_bytes,
            inspection.parameters,
            "unknown" if inspection.flops is None else f"{inspection.flops:.3g}",
            dict(inspection.compression) or "nothing",
        )
        return {"model": self.package["model"], **identity, "size_bytes": inspection.size_bytes}

    def subject(self) -> dict[str, Any]:
        """Name the package."""
        return {"model": self.package["model"], "path": self.package["path"]}
