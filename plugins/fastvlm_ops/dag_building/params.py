"""Params that several DAGs offer in their forms."""

from __future__ import annotations

from airflow.sdk import Param


def dry_run_param(what_it_spares: str) -> Param:
    """Return the Param ``dry_run`` of a DAG that can destroy or overwrite something: on by default.

    :param what_it_spares: what does not happen while it is on, as a clause
    """
    return Param(
        True,
        type="boolean",
        title="Dry run",
        description_md=f"**On: {what_it_spares}.** The tasks say what they would do. Turn it off to do it.",
        section="Safety",
    )


def as_of_param() -> Param:
    """Return the Param ``as_of`` of a DAG that can be run for a moment in the past."""
    return Param(
        None,
        type=["null", "string"],
        format="date-time",
        title="As of",
        description_md="The run does what it **would have done then**, and reads nothing from after it; cut"
        " down to the full hour in UTC. **Empty: the end of the run's interval**, or when it was due.",
        section="When",
    )
