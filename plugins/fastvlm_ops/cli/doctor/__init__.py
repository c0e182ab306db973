"""``fastvlm-ops doctor``: tries what a backup needs, one thing after the other."""

from __future__ import annotations

import json
import os
import sys
import textwrap
import warnings
from collections import Counter
from collections.abc import Callable, Iterator

from fastvlm_ops.cli.doctor.findings import Finding, State
from fastvlm_ops.cli.places import Places

_MARKS = {State.OK: "ok", State.WARNING: "warning", State.FAILED: "FAILED", State.UNKNOWN: "unknown"}
_COLOURS = {State.OK: "32", State.WARNING: "33", State.FAILED: "31", State.UNKNOWN: "35"}
_WIDTH = 100


def run(*, as_json: bool, fix: bool, tell: Callable[[str], None]) -> int:
    """Try everything and say what was found.

    :param as_json: as a JSON list rather than for people
    :param fix: create pools that are missing
    :param tell: takes one line
    :returns: 0 when nothing failed and everything could be tried, else 1
    :raises CommandError: there is no Airflow here
    """
    places = Places.of_airflow()  # before the rest: it is what says that there is no Airflow
    warnings.simplefilter("ignore")  # what matters of them is among the findings
    findings = []
    for finding in examine(places, fix=fix):
        findings.append(finding)
        if not as_json:
            for line in _lines(finding):
                tell(line)
    if as_json:
        tell(json.dumps([finding.as_dict() for finding in findings], indent=1))
    else:
        tell(_summary(findings))
    return int(any(finding.state in (State.FAILED, State.UNKNOWN) for finding in findings))


def examine(places: Places, *, fix: bool) -> Iterator[Finding]:
    """Yield what each check found, as it is found.

    :param places: of this Airflow
    :param fix: create pools that are missing
    """
    from fastvlm_ops.cli.doctor import (
        airflow,
        bucket,
        drills,
        files,
        installation,
        operations_database,
        prometheus,
    )

    yield from installation.versions()
    yield from installation.plugin(places)
    yield from files.folders()
    yield from files.definitions(places)
    yield from files.dag_files(places)
    yield from bucket.examine()
    yield from operations_database.examine()
    yield from prometheus.examine()
    yield from drills.examine(places)
    yield from airflow.pools(fix=fix)
    yield from airflow.processes()
    yield from airflow.dags()


def _lines(finding: Finding) -> Iterator[str]:
    mark = f"{_MARKS[finding.state]:<8}"
    if sys.stdout.isatty() and "NO_COLOR" not in os.environ:
        mark = f"\x1b[{_COLOURS[finding.state]}m{mark}\x1b[0m"
    yield from _wrapped(f"{mark}{finding.check:<22} ", finding.found)
    if finding.remedy:
        yield from _wrapped(" " * 31, f"→ {finding.remedy}")


def _wrapped(head: str, text: str) -> Iterator[str]:
    """Text in a column of its own; a line that somebody may want to copy is not broken."""
    if "\n" not in text and len(text) > _WIDTH - 31 and "→" not in text:
        text = textwrap.fill(text, _WIDTH - 31, break_long_words=False, break_on_hyphens=False)
    first, *rest = text.splitlines() or [""]
    yield f"{head}{first}"
    for line in rest:
        yield f"{' ' * 31}{line}"


def _summary(findings: list[Finding]) -> str:
    counts = Counter(finding.state for finding in findings)
    said = ", ".join(f"{counts[state]} {state}" for state in State if counts[state])
    return f"\n{len(findings)} checks: {said}"
