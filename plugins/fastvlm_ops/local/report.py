"""What the demo prints at its end."""

from __future__ import annotations

from typing import Any

from fastvlm_ops.local.airflow_api import RunResult
from fastvlm_ops.local.console import size, table
from fastvlm_ops.local.round_trip import RoundTrip

_BACKUPS = ("backup_full", "backup_incremental")


def story_text(story: RoundTrip, starts: dict[str, float]) -> str:
    """Return the table of steps, the ids of the backups, and what the comparison found.

    :param story: what happened
    :param starts: seconds from the start until each part was ready
    """
    rows: list[tuple[str, ...]] = [("step", "seconds", "data", "sent or fetched")]
    rows += [(f"{name} ready after", f"{seconds:.1f}", "", "") for name, seconds in starts.items()]
    rows += _backup_rows(story.runs["backup_full"])
    rows.append(("a day of changes", f"{story.seconds['a day of changes']:.1f}", "", ""))
    rows += _backup_rows(story.runs["backup_incremental"])
    rows += _restore_rows(story.runs["restore_backup"])
    compared = sum(check.size_bytes for check in story.checks)
    rows.append(("comparison with the source", f"{story.seconds['comparison']:.1f}", size(compared), ""))
    lines = [table(rows), "", *(f"{dag_id:19} {story.backup_id(dag_id)}" for dag_id in _BACKUPS), ""]
    lines.append("The restored tree equals its source:")
    lines += [f"  {check.component:16} {check.text}" for check in story.checks]
    return "\n".join(lines)


def login_text(facts: dict[str, Any]) -> str:
    """Return where the UI is and how to log in.

    :param facts: as in the state file
    """
    return (
        f"Airflow's UI   {facts['url']}\n"
        f"user           {facts['user']}\n"
        f"password       {facts['password']}\n"
        f"files and logs {facts['folder']}\n"
        "It stays up until:  make down"
    )


def _backup_rows(run: RunResult) -> list[tuple[str, ...]]:
    backup = run.values("publish_backup")[0]
    rows: list[tuple[str, ...]] = [
        (run.dag_id, f"{run.seconds:.1f}", size(backup["size_bytes"]), size(backup["new_bytes"]))
    ]
    for value in run.values("create_backup"):
        amounts = size(value["size_bytes"]), size(value["new_bytes"])
        rows.append((f"  {value['component']}", f"{value['duration_seconds']:.1f}", *amounts))
    return rows


def _restore_rows(run: RunResult) -> list[tuple[str, ...]]:
    values = run.values("restore_backup")
    total, fetched = (sum(value[key] for value in values) for key in ("size_bytes", "fetched_bytes"))
    rows: list[tuple[str, ...]] = [(run.dag_id, f"{run.seconds:.1f}", size(total), size(fetched))]
    for value in values:
        amounts = size(value["size_bytes"]), size(value["fetched_bytes"])
        rows.append((f"  {value['component']}", f"{value['duration_seconds']:.1f}", *amounts))
    return rows
