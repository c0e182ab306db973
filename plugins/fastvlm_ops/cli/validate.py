"""``fastvlm-ops validate``: every file of ``include/`` against its model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fastvlm_ops.core.config import CHECKED_FILES, DefinitionError, Problem
from fastvlm_ops.core.config.schemas import SCHEMAS, schema_text

# Not definitions: files for Prometheus and others, which their own tools check.
OTHER_FOLDERS = ("observability",)
_SCHEMAS = "schemas"
# What editors and version control leave in any folder.
_IGNORED_SUFFIXES = (".new", "~", ".swp", ".bak")


def run(folder: Path, tell: Callable[[str], None]) -> int:
    """Check a folder and say what was found.

    :param folder: of definition files
    :param tell: takes one line
    :returns: 0 when all files are right, else 1
    """
    problems = problems_of(folder)
    for problem in problems:
        tell(str(problem))
    if not problems:
        tell(f"{folder}: {', '.join(sorted(CHECKED_FILES))} can be used")
    return 1 if problems else 0


def problems_of(folder: Path) -> list[DefinitionError]:
    """Return what is wrong in a folder of definition files.

    :param folder: of definition files
    :returns: one error a file, each with all that is wrong in it; files that nothing reads are wrong too
    """
    if not folder.is_dir():
        message = "is not a folder; name the folder of the definition files"
        return [DefinitionError(folder, [Problem("", message)])]
    problems = []
    for name, load in CHECKED_FILES.items():
        try:
            load(folder)
        except DefinitionError as error:
            problems.append(error)
    return problems + [_unknown(path) for path in sorted(folder.rglob("*")) if _is_unknown(folder, path)]


def _is_unknown(folder: Path, path: Path) -> bool:
    relative = path.relative_to(folder)
    if not path.is_file() or any(part.startswith(".") for part in relative.parts):
        return False
    if relative.parts[0] in OTHER_FOLDERS or path.name.endswith(_IGNORED_SUFFIXES):
        return False
    if relative.parts[0] == _SCHEMAS:
        model = SCHEMAS.get(relative.relative_to(_SCHEMAS).as_posix())
        return model is None or path.read_text(encoding="utf-8") != schema_text(model)
    return relative.as_posix() not in CHECKED_FILES


def _unknown(path: Path) -> DefinitionError:
    if path.parent.name == _SCHEMAS:
        message = "is not the schema that this version has; run fastvlm-ops init"
    else:
        message = f"is not known, and nothing reads it; known: {', '.join(sorted(CHECKED_FILES))}"
    return DefinitionError(path, [Problem("", message)])
