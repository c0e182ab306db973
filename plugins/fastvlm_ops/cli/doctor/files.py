"""Checks of folders, definition files, and DAG files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from fastvlm_ops import settings
from fastvlm_ops.cli.doctor.findings import Finding, failed, not_tried, ok, warning
from fastvlm_ops.cli.errors import CommandError
from fastvlm_ops.cli.init import plan
from fastvlm_ops.cli.places import Places
from fastvlm_ops.cli.validate import check_folder

_VARIABLE = "AIRFLOW__FASTVLM_OPS__{}"


def folders() -> Iterator[Finding]:
    """Folders that settings name: there, and writable for who runs this."""
    try:
        yield _writable("restore_dir", settings.restore_dir(), may_be_made=True)
    except settings.SettingError as error:
        remedy = f"export {_VARIABLE.format('RESTORE_DIR')}=/srv/fastvlm-restores, or set it in airflow.cfg"
        yield warning("restore_dir", str(error), remedy)
    try:
        yield _writable("scratch_dir", settings.scratch_dir())
    except settings.SettingError as error:
        yield failed("scratch_dir", str(error), "make the folder, or name another one")
    try:
        metrics = settings.metrics_dir()
        if metrics is not None:
            yield _writable("metrics_dir", metrics)
    except settings.SettingError as error:
        yield failed("metrics_dir", str(error), "make the folder, or name another one")


def _writable(option: str, folder: Path, *, may_be_made: bool = False) -> Finding:
    place = folder
    while may_be_made and not place.exists() and place != place.parent:
        place = place.parent
    if place.is_dir() and os.access(place, os.W_OK | os.X_OK):
        return ok(option, f"{folder}{'' if place == folder else ' can be made'}")
    user = f"user {os.geteuid()}"
    remedy = (
        f"give {user} the right to write there, or set {_VARIABLE.format(option.upper())} to another folder"
    )
    return failed(option, f"{user} cannot write to {place}", remedy)


def definitions(places: Places) -> Iterator[Finding]:
    """The definition files, by the same code as ``validate``; then what they name."""
    if not places.include.is_dir():
        found = f"{places.include} is not a folder"
        remedy = f"fastvlm-ops init, or set {_VARIABLE.format('INCLUDE_DIR')}"
        yield failed("include_dir", found, remedy)
        yield not_tried("definitions", "include_dir")
        yield not_tried("components", "include_dir")
        return
    yield ok("include_dir", str(places.include))
    right, problems = check_folder(places.include)
    if problems:
        found = "\n".join(str(problem) for problem in problems)
        yield failed("definitions", found, "edit the file; fastvlm-ops validate checks it again")
    else:
        yield ok("definitions", f"{', '.join(right)} can be used")
    if any(problem.file.name == "components.yaml" for problem in problems):
        yield not_tried("components", "definitions")
    else:
        yield from _components(places)


def _components(places: Places) -> Iterator[Finding]:
    """Each component's source, as a backup checks it before it sends anything."""
    from fastvlm_ops.core.backup.errors import SourceError
    from fastvlm_ops.core.config import DefinitionError, load_components
    from fastvlm_ops.hooks.components import source_named
    from fastvlm_ops.hooks.operations_db import OperationsDatabaseError

    components = load_components(places.include)
    problems = []
    for position, name in enumerate(components.names):
        try:
            source_named(components, name).check()
        except (SourceError, DefinitionError, OperationsDatabaseError, settings.SettingError) as error:
            problems.append(f"components[{position}] ({name}): {error}")
    if problems:
        remedy = f"edit {components.file}, or mend what it names"
        yield failed("components", "\n".join(problems), remedy)
    else:
        yield ok("components", f"{', '.join(components.names)} can be read by user {os.geteuid()}")


def dag_files(places: Places) -> Iterator[Finding]:
    """The package's DAG files: all there, of this version, and without errors."""
    from airflow.dag_processing.dagbag import DagBag

    try:
        steps = [step for step in plan(places) if step.name.startswith("dags/")]
    except CommandError as error:
        yield failed("dag files", str(error), "mend that, then fastvlm-ops init")
        return
    missing = [step.path.name for step in steps if not step.path.is_file()]
    if missing:
        yield failed(
            "dag files", f"{places.dags} lacks {', '.join(missing)}", "fastvlm-ops init --bring-back"
        )
        return
    errors: dict[str, str] = {}
    for step in steps:
        errors |= DagBag(step.path).import_errors
    if errors:
        found = "; ".join(f"{file}: {text.strip().splitlines()[-1]}" for file, text in sorted(errors.items()))
        yield failed("dag files", found, "mend the file, or remove it and run fastvlm-ops init --bring-back")
    elif old := [step.path.name for step in steps if step.what == "renewed"]:
        yield warning("dag files", f"{', '.join(old)} are of another version", "fastvlm-ops init")
    elif edited := [step.path.name for step in steps if step.what.startswith("kept")]:
        yield ok("dag files", f"all are there; edited here: {', '.join(edited)}")
    else:
        yield ok("dag files", f"all {len(steps)} are there, as this version has them")
