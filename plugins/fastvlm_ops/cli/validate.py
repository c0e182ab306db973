"""``fastvlm-ops validate``: every file of ``include/`` against its model."""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path

from fastvlm_ops.cli.places import Places
from fastvlm_ops.core.config import (
    CAPACITY_FILE,
    COMPONENTS_FILE,
    COREML_FILE,
    Capacity,
    CoreMLDefinitions,
    DefinitionError,
    Problem,
)
from fastvlm_ops.core.config.components import Components
from fastvlm_ops.core.config.disaster_recovery import SCENARIO_FOLDER, Scenario, load_scenario
from fastvlm_ops.core.config.disaster_recovery_policy import POLICY_FILE, DisasterRecoveryPolicy
from fastvlm_ops.core.config.policies import S3Policy
from fastvlm_ops.core.config.prometheus import PrometheusConfig
from fastvlm_ops.core.config.reading import DefinitionFile, read_definition_file
from fastvlm_ops.core.config.rules import Rules
from fastvlm_ops.core.config.schemas import SCHEMAS, schema_text

REQUIRED = (COMPONENTS_FILE,)
# By pattern of the path below the folder.
MODELS: dict[str, type[DefinitionFile]] = {
    COMPONENTS_FILE: Components,
    CAPACITY_FILE: Capacity,
    COREML_FILE: CoreMLDefinitions,
    POLICY_FILE: DisasterRecoveryPolicy,
    f"{SCENARIO_FOLDER}/*.y*ml": Scenario,
    "policies/*.json": S3Policy,
    "observability/prometheus/*.rules.yaml": Rules,
    "observability/prometheus/prometheus.yml": PrometheusConfig,
}
# What `init`, editors and version control leave in any folder; nothing reads it as a definition.
LEFTOVERS = ("*.new", "*~", "*.swp", "*.bak", "*.orig")


def run(folder: Path | None, tell: Callable[[str], None]) -> int:
    """Check a folder and say what was found.

    :param folder: of definition files; that of this Airflow where None
    :param tell: takes one line
    :returns: 0 when all files are right, else 1
    :raises CommandError: no folder was named, and there is no Airflow that has one
    """
    folder = folder or Places.of_airflow().include
    checked, problems = check_folder(folder)
    for problem in problems:
        tell(str(problem))
    if not problems:
        tell(f"{folder}: {', '.join(checked)} can be used")
    return 1 if problems else 0


def check_folder(folder: Path) -> tuple[list[str], list[DefinitionError]]:
    """Check every file of a folder of definition files.

    :param folder: of definition files
    :returns: names of the files that are right, and one error a file that is not, with all that is wrong in
        it. Files that nothing reads are wrong too: a misspelt name would else mean nothing.
    """
    if not folder.is_dir():
        message = "is not a folder; name the folder of the definition files"
        return [], [DefinitionError(folder, [Problem("", message)])]
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    names = {name for name in names if not _is_ignored(name)} | set(REQUIRED)
    right, problems = [], []
    for name in sorted(names):
        try:
            _check(folder, name)
            right.append(name)
        except DefinitionError as error:
            problems.append(error)
    return right, problems


def _is_ignored(name: str) -> bool:
    is_hidden = any(part.startswith(".") for part in name.split("/"))
    return is_hidden or any(fnmatchcase(name, pattern) for pattern in LEFTOVERS)


def _check(folder: Path, name: str) -> None:
    path = folder / name
    part, _, rest = name.partition("/")
    if part == "schemas":
        _check_schema(path, rest)
        return
    for pattern, model in MODELS.items():
        if fnmatchcase(name, pattern):
            # A scenario's name is a DAG's, and has to be fit for that.
            load_scenario(path) if model is Scenario else read_definition_file(path, model)
            return
    message = f"is not known, and nothing reads it; known: {', '.join(MODELS)}"
    raise DefinitionError(path, [Problem("", message)])


def _check_schema(path: Path, name: str) -> None:
    model = SCHEMAS.get(name)
    if model is None:
        raise DefinitionError(
            path, [Problem("", f"is no schema of this version; known: {', '.join(SCHEMAS)}")]
        )
    if path.read_bytes() != schema_text(model).encode():
        raise DefinitionError(path, [Problem("", "is not this version's schema; run fastvlm-ops init")])
