"""The report of a drill for people: ``report.html``, in one file with its pictures, and ``report.md``."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastvlm_ops.core.disaster_recovery.reporting import words
from fastvlm_ops.core.disaster_recovery.reporting.axes import step_tone, tone
from fastvlm_ops.core.disaster_recovery.reporting.drill_picture import drill_picture
from fastvlm_ops.core.disaster_recovery.reporting.hit import hit_facts
from fastvlm_ops.core.disaster_recovery.reporting.improvements import Improvement
from fastvlm_ops.core.disaster_recovery.reporting.record import DrillRecord
from fastvlm_ops.core.disaster_recovery.reporting.timeline import Timeline
from fastvlm_ops.core.disaster_recovery.reporting.trend import (
    Figure,
    Gauge,
    TrendPicture,
    gauge,
    trend_picture,
)
from fastvlm_ops.core.disaster_recovery.reporting.users_picture import users_picture

if TYPE_CHECKING:
    from jinja2 import Environment

    from fastvlm_ops.core.disaster_recovery.measuring import Measures

TEMPLATES = Path(__file__).parent / "templates"
STYLES = ("report.css", "pictures.css")
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>()#+!|~-])")
_MOST_LOST = 200
_HIDDEN = ("Cc", "Cf", "Cs")


def render_html(
    record: DrillRecord,
    timeline: Timeline,
    improvements: tuple[Improvement, ...],
    measures: Measures | None = None,
) -> str:
    """Return the report as one HTML file, which needs nothing else.

    :param record: of the drill, with its verdict
    :param timeline: of the drill
    :param improvements: what to improve
    :param measures: what was measured
    """
    style = "\n".join((TEMPLATES / name).read_text(encoding="utf-8") for name in STYLES)
    from markupsafe import Markup

    return (
        _environment(True)
        .get_template("report.html")
        .render(
            **_context(record, improvements, measures),
            style=Markup(style),  # noqa: S704 - our own file
            users=users_picture(timeline, record.drill.rto_objective_seconds),
            whole=drill_picture(timeline),
            trends=trends(record),
        )
    )


def render_markdown(
    record: DrillRecord, improvements: tuple[Improvement, ...], measures: Measures | None = None
) -> str:
    """Return the report as Markdown.

    :param record: of the drill, with its verdict
    :param improvements: what to improve
    :param measures: what was measured
    """
    return _environment(False).get_template("report.md").render(**_context(record, improvements, measures))


def figures(record: DrillRecord) -> list[tuple[str, float | None, float, Gauge, str]]:
    """Return RTO and RPO: name, value, objective, picture, and what is to be known of it.

    :param record: of the drill
    """
    drill = record.drill
    rto, rpo = drill.figures.get("rto_seconds"), drill.figures.get("rpo_seconds")
    detection, failover = drill.figures.get("detection_seconds"), drill.figures.get("failover_seconds")
    parts = (
        [("detection", detection)] if detection is not None and rto is not None and detection < rto else []
    )
    if detection is not None and rto is not None and detection > rto:
        told = "served again before a time-out told of the outage"
    elif detection is not None and rto is None:
        told = f"noticed after {words.seconds(detection)}, and not served again"
    elif detection is not None:
        told = f"noticed after {words.seconds(detection)}, served again {words.seconds(failover)} later"
    else:
        told = "no request failed" if drill.fault_at and rto is not None else ""
    lost, acknowledged = drill.figures.get("lost_writes"), drill.figures.get("acknowledged_writes")
    of_data = (
        f"{words.number(lost, 'acknowledged write')} of {acknowledged} lost"
        if rpo is not None and lost is not None and acknowledged
        else ""
    )
    return [
        ("RTO", rto, drill.rto_objective_seconds, gauge(rto, drill.rto_objective_seconds, parts), told),
        ("RPO", rpo, drill.rpo_objective_seconds, gauge(rpo, drill.rpo_objective_seconds), of_data),
    ]


def trends(record: DrillRecord, address: Callable[[str], str] = lambda _: "") -> list[TrendPicture]:
    """Return RTO and RPO of the last drills of the scenario, this one last; empty where it is the first.

    :param record: of the drill
    :param address: where a click on an earlier drill leads, by its run key
    """
    if not record.earlier or record.plan.dry_run:
        return []
    drill = record.drill
    return [
        trend_picture(
            title,
            [
                *(
                    Figure(one.planned_at, getattr(one, name), one.verdict, address(one.run_key))
                    for one in record.earlier
                ),
                Figure(record.planned_at, drill.figures.get(name), drill.verdict),
            ],
            objective,
        )
        for title, name, objective in (
            ("RTO", "rto_seconds", drill.rto_objective_seconds),
            ("RPO", "rpo_seconds", drill.rpo_objective_seconds),
        )
    ]


def facts(record: DrillRecord) -> list[tuple[str, str]]:
    """Return what else is to be known of a drill, with its names.

    :param record: of the drill
    """
    plan, drill = record.plan, record.drill
    found = [
        ("Run", plan.run_key),
        ("Planned", words.moment(record.planned_at)),
        ("Fault injected", words.moment(drill.fault_at) if drill.fault_at else "never"),
        ("Ended", words.moment(record.ended_at)),
        ("Worker", plan.host),
        ("Target", plan.url or "the backups"),
        ("Healthy before", ", ".join(plan.instances_before) or "nothing was asked"),
        ("Scenario file", f"{plan.scenario}.yaml, SHA-256 {plan.definition_hash}"),
        ("Definition files", plan.include_hash),
    ]
    if record.fault is not None:
        by = str(record.fault["undone_by"] or "nobody").replace("_", " ")
        after = record.undone_after_seconds
        undone = f"by the {by}" + (
            f", {words.seconds(after)} after it was injected" if after is not None else ""
        )
        found.append(("Fault undone", "not known" if record.is_fault_left else undone))
        found.append(("Time to live", words.seconds(plan.time_to_live_seconds)))
    return found


def _context(
    record: DrillRecord, improvements: tuple[Improvement, ...], measures: Measures | None
) -> dict[str, Any]:
    lost = (*measures.lost, *measures.lost_later) if measures else ()
    return {
        "record": record,
        "figures": figures(record),
        "facts": facts(record),
        "hit": hit_facts(record.plan.fault),
        "commands": record.commands(),
        "improvements": improvements,
        "measures": measures,
        "lost": lost[:_MOST_LOST],
        "seconds": words.seconds,
        "moment": words.moment,
        "step": words.step,
        "tone": tone,
        "step_tone": step_tone,
    }


@lru_cache(maxsize=2)
def _environment(is_html: bool) -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=is_html,  # noqa: S701 - Markdown has escapes of its own: the filters below
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    made.filters["text"] = _as_text
    made.filters["code"] = _as_code
    return made


def _as_text(value: object) -> str:
    """Return text for Markdown in which nothing is markup, on one line."""
    return _MARKDOWN.sub(r"\\\1", _plain(value))


def _as_code(value: object) -> str:
    """Return text for between backticks in a table."""
    return _plain(value).replace("`", "'").replace("|", "\\|")


def _plain(value: object) -> str:
    """Return text on one line."""
    return " ".join(str(value).split())


def _shown(value: Any) -> Any:
    """Return a value without characters that hide others, or turn the direction of writing."""
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value
    return "".join(one for one in value if one in "\n\t" or unicodedata.category(one) not in _HIDDEN)
