"""Checks of what is installed."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import fastvlm_ops
from fastvlm_ops.cli.doctor.findings import Finding, failed, ok, warning
from fastvlm_ops.cli.places import Places
from fastvlm_ops.cli.shipped import PLUGIN, shipped_files

_EXTRAS = ("", "airflow", "backup", "capacity", "store")


def versions() -> Iterator[Finding]:
    """Python, and each package that the DAGs and pages need, against what this version asks for."""
    wanted = metadata.metadata("fastvlm-ops")["Requires-Python"] or ""
    python = platform.python_version()
    if wanted and python not in SpecifierSet(wanted):
        yield failed("python", f"this is Python {python}", f"run Airflow with Python {wanted}")
    else:
        yield ok("python", f"Python {python}")
    needed = [Requirement(text) for text in metadata.requires("fastvlm-ops") or ()]
    problems = wrong_versions(needed, _installed)
    if problems:
        remedy = f"pip install 'fastvlm-ops[airflow]=={fastvlm_ops.__version__}'"
        yield failed("versions", "; ".join(problems), remedy)
    else:
        found = f"fastvlm-ops {fastvlm_ops.__version__}, Airflow {_installed('apache-airflow')}"
        yield ok("versions", f"{found}, and all that they need")


def wrong_versions(needed: list[Requirement], installed: Callable[[str], str | None]) -> list[str]:
    """Say which requirements are not met.

    :param needed: as the package's metadata has them; those of other extras are passed over
    :param installed: gives the installed version of a package by its name, or None
    """
    problems = []
    for requirement in needed:
        marker = requirement.marker
        if requirement.name == "fastvlm-ops":
            continue
        if marker is not None and not any(marker.evaluate({"extra": extra}) for extra in _EXTRAS):
            continue
        version = installed(requirement.name)
        if version is None:
            problems.append(f"{requirement.name} is not installed")
        elif not requirement.specifier.contains(version, prereleases=True):
            problems.append(f"{requirement.name} is {version}, not {requirement.specifier}")
    return problems


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def plugin(places: Places) -> Iterator[Finding]:
    """The plugin file is there once, and the package is not in the plugins folder as well."""
    from airflow import plugins_manager

    file = places.file(PLUGIN)
    package = places.plugins / "fastvlm_ops"
    ours = Path(fastvlm_ops.__file__).resolve().parent
    if package.exists() and package.resolve() != ours:
        found = f"{package} is a second copy of the package; the one in use is {ours}"
        yield failed("plugin", found, f"remove {package}: what is installed is enough")
        return
    if not file.is_file():
        yield failed("plugin", f"{file} is not there, so Airflow has no Operations pages", "fastvlm-ops init")
        return
    plugins_manager.ensure_plugins_loaded()
    errors = {Path(str(name)).name: error for name, error in plugins_manager.get_import_errors().items()}
    if file.name in errors:
        reason = str(errors[file.name]).strip().splitlines()[-1]
        yield failed(
            "plugin", f"{file} cannot be imported: {reason}", "fastvlm-ops init, after a look at the file"
        )
    elif file.read_bytes() != shipped_files()[PLUGIN]:
        found = f"{file} is not this version's"
        yield warning("plugin", found, "fastvlm-ops init, then start the api-server again")
    else:
        yield ok("plugin", f"{file} registers the Operations pages")
