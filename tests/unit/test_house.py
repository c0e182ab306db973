"""What holds for the repository as a whole: its layers, its text files, its version."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "plugins" / "fastvlm_ops"
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
DAG_FILES = sorted((ROOT / "dags").rglob("*.py"))


def contract(text: str) -> dict[str, object]:
    (found,) = (c for c in PYPROJECT["tool"]["importlinter"]["contracts"] if text in c["name"])
    return found


def tracked_files() -> list[Path]:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    paths = (ROOT / name for name in listing.stdout.decode().split("\0") if name)
    return [path for path in paths if path.is_file()]


def modules_in(package: Path) -> set[str]:
    files = {path.stem for path in package.glob("*.py")} - {"__init__", "__main__"}
    return files | {path.parent.name for path in package.glob("*/__init__.py")}


@pytest.mark.parametrize(
    ("name", "package"),
    [("The house", PACKAGE), ("Domains of core", PACKAGE / "core")],
    ids=["house", "core"],
)
def test_every_package_has_its_place_in_a_contract(name, package):
    layers = contract(name)["layers"]
    named = {part.strip(" ()") for layer in layers for part in re.split(r"[|:]", layer)}
    assert modules_in(package) <= named
    assert contract(name)["exhaustive"] is True


# importer, import statement, the contract that must break
FORBIDDEN_IMPORTS = [
    ("core.backup", "import airflow", "core imports no Airflow"),
    ("core.backup", "from fastvlm_ops import settings", "core imports no Airflow"),
    ("core.config", "from fastvlm_ops.core import backup", "Domains of core"),
    ("core.programs", "from fastvlm_ops.core import backup", "Domains of core"),
    ("core.slo", "from fastvlm_ops.core import backup", "Of the domains, only"),
    ("core.slo", "from fastvlm_ops.core import health", "Domains of core"),
    ("dag_building", "from fastvlm_ops.hooks import s3", "dag_building uses nothing but"),
    ("dag_building", "from fastvlm_ops.core import backup", "dag_building uses nothing but"),
    ("hooks.s3", "from fastvlm_ops import operators", "The house"),
    ("local", "from fastvlm_ops.hooks import s3", "local uses nothing but"),
    ("operators", "from fastvlm_ops import dag_building", "The house"),
    ("operators", "from fastvlm_ops import local", "The house"),
    ("newcomer", "import os", "The house"),
    ("core.newcomer", "import os", "Domains of core"),
]
ALLOWED_IMPORTS = {
    "core.disaster_recovery.drill": "from fastvlm_ops.core.backup import restore",
    "dag_building.defaults": "from fastvlm_ops import settings\nfrom fastvlm_ops.core.config import models",
    "hooks.s3": "from fastvlm_ops import settings\nfrom fastvlm_ops.core.backup import restore",
    "local.demo": "from fastvlm_ops.core.backup import restore\nimport airflow",
    "operators.backup": "from fastvlm_ops.hooks import s3\nfrom fastvlm_ops.triggers import backup",
}


def lint_imports(folder: Path, modules: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run our contracts over a package made of these modules."""
    base = dict.fromkeys(
        ["core.backup.restore", "core.config.models", "dag_building", "hooks.s3", "local"], ""
    )
    for name, text in {**base, "operators": "", "settings": "", **modules}.items():
        path = folder / "fastvlm_ops" / name.replace(".", "/") / "__init__.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
        for parent in path.parents[1 : name.count(".") + 2]:
            (parent / "__init__.py").touch()
    shutil.copy(ROOT / "pyproject.toml", folder)
    code = "import sys; sys.path.insert(0, '.'); from importlinter.cli import lint_imports_command as c; c()"
    return subprocess.run(
        [sys.executable, "-c", code, "--no-cache"], cwd=folder, capture_output=True, text=True, timeout=60
    )


def test_allowed_imports_pass(tmp_path):
    result = lint_imports(tmp_path, ALLOWED_IMPORTS)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("importer", "statement", "name"), FORBIDDEN_IMPORTS, ids=[f"{i[0]}-{i[1]}" for i in FORBIDDEN_IMPORTS]
)
def test_forbidden_imports_break_a_contract(tmp_path, importer, statement, name):
    result = lint_imports(tmp_path, {"core.health": "", importer: statement})
    assert result.returncode == 1, result.stdout + result.stderr
    assert re.search(rf"{re.escape(name)}.* BROKEN", result.stdout), result.stdout


@pytest.mark.parametrize("path", DAG_FILES, ids=lambda path: path.name)
def test_dag_files_import_only_wiring(path):
    allowed = ("fastvlm_ops.dag_building", "fastvlm_ops.operators", "fastvlm_ops.sensors")
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            assert not name.startswith("fastvlm_ops") or name.startswith(allowed), f"{path.name}: {name}"


# Put together from pieces, so that this file does not find itself.
NOT_IN_THE_REPOSITORY = [
    rf"(?<![\w.-])/(?:{'|'.join(['home', 'root', 'Users'])})/[a-z]\w*",  # somebody's home
    rf"(?<![\w.-])/{'work'}/",
    "|".join(re.escape(host) for host in ["pypi" + ".org", "pythonhosted" + ".org", "registry." + "npmjs"]),
    rf"--(?:extra-)?index-{'url'}",
]


def test_no_machine_path_and_no_registry_host_in_tracked_files():
    pattern = re.compile("|".join(NOT_IN_THE_REPOSITORY))
    found = []
    for path in tracked_files():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(ROOT)}: {match[0]}" for match in pattern.finditer(text)]
    assert not found


def test_lock_is_hashes_without_addresses():
    lock = (ROOT / "requirements.lock").read_text()
    requirements = re.split(r"\n(?=\S)", lock.strip())
    assert len(requirements) > 100
    for requirement in requirements:
        assert re.match(r"[a-z0-9.-]+==\S+", requirement)
        assert "--hash=sha256:" in requirement
    assert "://" not in lock


def test_lock_holds_every_dependency():
    locked = set(re.findall(r"^([a-z0-9.-]+)==", (ROOT / "requirements.lock").read_text(), re.M))
    project = PYPROJECT["project"]
    wanted = [*project["dependencies"], *PYPROJECT["dependency-groups"]["dev"]]
    wanted += [entry for extra in project["optional-dependencies"].values() for entry in extra]
    names = {re.match(r"[\w.-]+", entry)[0].lower() for entry in wanted} - {project["name"]}
    assert names <= locked, "run make lock"


def test_version_agrees_with_the_changelog():
    newest = re.search(r"^## \[(\d+\.\d+\.\d+)\]", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert newest is not None
    assert newest[1] == PYPROJECT["project"]["version"]
