"""Writes the results of the benchmarks into README.md and docs/benchmarks.md, between markers.

    .venv/bin/python -m benchmarks.report

A marker is a comment, as in ``<!-- benchmark -->`` and ``<!-- /benchmark -->``; all between is replaced.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from benchmarks.backup_growth import growth_rows
from benchmarks.backup_results import Samples, beside_rows, costs_rows
from benchmarks.figures import RESULTS, Figure, markdown_table
from benchmarks.running import ROOT
from fastvlm_ops.core.backup import format_bytes

README = Path("README.md")
DOCUMENT = Path("docs/benchmarks.md")

_QUIET_LOAD = 1.0


class MarkerError(Exception):
    """A document lacks a marker."""


def sections(results: Path = RESULTS) -> dict[Path, dict[str, str]]:
    """What stands between the markers: document → marker → text.

    :param results: folder of the results' files
    """
    backup = _details(results, "backup")
    samples = Samples.from_details(backup)
    beside = markdown_table(beside_rows(samples, backup["peers"], backup["versions"]))
    rounds = max(len(costs) for tools in samples.costs.values() for costs in tools.values())
    absent = [
        f"Not run: {text}." for name, text in backup["peers"].items() if name not in samples.costs["full"]
    ]
    medians = [f"Medians of {rounds} round(s).", *absent, _run_in_words(backup)]
    growth = _details(results, "backup_growth")
    capacity = _details(results, "capacity")
    coreml = _details(results, "coreml")
    programs = markdown_table(_program_rows(capacity))
    return {
        README: {
            "benchmark": f"{beside}\n\n{_one_sentence(backup)} {medians[0]}",
            "capacity": programs,
        },
        DOCUMENT: {
            "backup": "\n\n".join([beside, " ".join(medians)]),
            "backup costs": "\n\n".join([markdown_table(costs_rows(samples)), backup["note"]]),
            "backup growth": "\n\n".join(
                [
                    markdown_table(_figure_rows(results / "backup_growth.json")),
                    markdown_table(growth_rows(growth["runs"])),
                    _run_in_words(growth),
                ]
            ),
            "capacity": "\n\n".join(
                [
                    programs,
                    markdown_table(_beside_rows(results / "capacity.json")),
                    _series_in_words(capacity),
                ]
            ),
            "capacity fetch": markdown_table(_beside_rows(results / "capacity_fetch.json")),
            "capacity scale": _scale_in_words(results),
            "coreml reference": _reference_in_words(results),
            "coreml": "\n\n".join(
                [
                    markdown_table(_rule_rows(coreml)),
                    markdown_table(_figure_rows(results / "coreml.json")),
                    _sessions_in_words(coreml),
                ]
            ),
            "drills": _drills_in_words(results),
            "operations pages": markdown_table(_figure_rows(results / "ui.json")),
        },
    }


def with_sections(text: str, found: dict[str, str]) -> str:
    """A document with what stands between its markers replaced.

    :raises MarkerError: a marker is not there
    """
    for marker, section in found.items():
        start, end = f"<!-- {marker} -->\n", f"<!-- /{marker} -->"
        pattern = re.compile(f"{re.escape(start)}.*?{re.escape(end)}", re.DOTALL)
        new = f"{start}{section}\n{end}".replace("\\", r"\\")
        text, count = pattern.subn(new, text)
        if count != 1:
            raise MarkerError(f"{start.strip()} … {end} is there {count} times, expected once")
    return text


def _details(results: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((results / "details" / f"{name}.json").read_text())
    return found


def _figure(item: dict[str, Any]) -> Figure:
    names = ("name", "value", "unit", "target", "peer", "peer_value", "better")
    return Figure(**{name: item[name] for name in names})


def _figure_rows(file: Path) -> list[tuple[str, ...]]:
    figures = [_figure(item) for item in json.loads(file.read_text())]
    rows: list[tuple[str, ...]] = [("", "measured", "target", "")]
    for figure in figures:
        measured = f"{figure.value:,.1f} {figure.unit}"
        rows.append((figure.name, measured, figure.target_in_words, "met" if figure.met else "missed"))
    return rows


def _beside_rows(file: Path) -> list[tuple[str, ...]]:
    """As :func:`_figure_rows`, for figures of which some have a peer."""
    rows: list[tuple[str, ...]] = [("", "measured", "beside", "target", "")]
    for item in json.loads(file.read_text()):
        figure = _figure(item)
        peer = "" if figure.peer_value is None else f"{figure.peer}: {figure.peer_value:,.3g}"
        target = f"{figure.target_in_words}{' of it' if figure.peer else ''}"
        measured = f"{figure.value:,.3g} {figure.unit}" if figure.value < 1000 else f"{figure.value:,.0f}"
        rows.append((figure.name, measured, peer, target, "met" if figure.met else "missed"))
    return rows


def _rule_rows(coreml: dict[str, Any]) -> list[tuple[str, ...]]:
    """What each rule says of the same sessions."""
    rules = [name for name in coreml["rows"][0] if name != "name"]
    rows = [(row["name"], *(f"{row[rule]:.1f}" for rule in rules)) for row in coreml["rows"]]
    return [("per cent, and alarms in 1,000 nights", *rules), *rows]


def _sessions_in_words(coreml: dict[str, Any]) -> str:
    noise = ", ".join(f"{one['noise']:.1%} by the {watch}" for watch, one in coreml["real"].items())
    count = len(coreml["real"]["clock"]["medians_ms"])
    return (
        f"{coreml['trials']} trials and {coreml['series']} histories of each kind. {count} real sessions; "
        f"their medians differed by {noise}. Load average before the run: {coreml['load_average'][0]}."
    )


def _program_rows(capacity: dict[str, Any]) -> list[tuple[str, ...]]:
    """Errors of all programs, of seasonal naive's, and ours in parts of theirs on the very same tasks."""
    horizons = ("7 days", "30 days")
    found = {days: {row["name"]: row for row in capacity[days]["programs"]} for days in horizons}
    rows: list[tuple[str, ...]] = [
        ("", *(text for days in horizons for text in (f"{days}: error", "ours of theirs")), "ms a series")
    ]
    for name in sorted(found[horizons[1]], key=lambda name: float(found[horizons[1]][name]["theirs"])):
        cells = []
        for days in horizons:
            row = found[days].get(name)
            cells += (
                [f"{row['theirs']:.2f}", f"{row['ours'] / row['theirs']:.2f}"] if row else ["not run", ""]
            )
        rows.append((name, *cells, f"{found[horizons[1]][name]['ms']:,.1f}"))
    return rows


def _series_in_words(capacity: dict[str, Any]) -> str:
    covered = ", ".join(
        f"{capacity[days]['bound']['coverage']:.1%} at {days}" for days in ("7 days", "30 days")
    )
    absent = "".join(f" Not run: {text}." for text in capacity["absent"].values())
    return (
        f"{len(capacity['series'])} series: {', '.join(capacity['series'])}. "
        f"The 95 % bound covered {covered}.{absent} Load average before the run: "
        f"{capacity['load_average'][0]}."
    )


def _scale_in_words(results: Path) -> str:
    """The figure and where the time went; it takes so long that it may not have been run."""
    file = results / "capacity_scale.json"
    if not file.exists() or not (results / "details" / file.name).exists():
        return "It has not been run yet."
    details = _details(results, "capacity_scale")
    parts = [markdown_table(_beside_rows(file)), markdown_table(details["tasks"])]
    parts.append(
        f"{details['parallel']} runs and tasks at once. Load average before: {details['load_average'][0]}."
    )
    return "\n\n".join(parts)


def _one_sentence(backup: dict[str, Any]) -> str:
    first, second = (format_bytes(backup["workload_bytes"][day]) for day in ("day_1", "day_2"))
    return (
        f"{first} on the first day, {second} on the second, to the same S3 server in the same run; "
        "every restore compared."
    )


def _reference_in_words(results: Path) -> str:
    file = results / "coreml-reference.json"
    if not file.exists():
        return "It has not been run yet."
    run = _run_in_words(_details(results, "coreml-reference"))
    return f"{markdown_table(_beside_rows(file))}\n\n{run}"


def _drills_in_words(results: Path) -> str:
    file = results / "disaster_recovery.json"
    if not file.exists():
        return "It has not been run yet."
    details = _details(results, "disaster_recovery")
    load = f"Load average before the run: {details['load_average'][0]}."
    return "\n\n".join([markdown_table(_beside_rows(file)), markdown_table(details["rows"]), load])


def _run_in_words(details: dict[str, Any]) -> str:
    machine, versions, load = details["machine"], details["versions"], details["load_average"]["before"][0]
    memory = format_bytes(machine["memory_bytes"])
    libraries = ", ".join(f"{name} {version}" for name, version in versions.items())
    noise = "" if load < _QUIET_LOAD else ": other programs were at work, so wall times are too high"
    return (
        f"Run on {machine['cores']} cores ({machine['processor']}), {memory} memory, "
        f"{machine['system']}, with {libraries}. Load average before the run: {load}{noise}."
    )


def main() -> int:
    """Rewrite the documents."""
    for document, found in sections().items():
        file = ROOT / document
        text = file.read_text()
        try:
            new = with_sections(text, found)
        except MarkerError as error:
            print(f"{document}: {error}", file=sys.stderr)
            return 1
        if new != text:
            file.write_text(new)
            print(f"{document}: results written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
