"""What the page of one drill shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastvlm_ops.core.disaster_recovery.reporting import report
from fastvlm_ops.core.disaster_recovery.reporting.drill_picture import DrillPicture, drill_picture
from fastvlm_ops.core.disaster_recovery.reporting.hit import describe_hit, hit_facts
from fastvlm_ops.core.disaster_recovery.reporting.record import DrillRecord, read_record
from fastvlm_ops.core.disaster_recovery.reporting.timeline import Timeline, make_timeline
from fastvlm_ops.core.disaster_recovery.reporting.trend import TrendPicture
from fastvlm_ops.core.disaster_recovery.reporting.users_picture import UsersPicture, users_picture
from fastvlm_ops.core.store.artefacts import Artefact, ArtefactStore, list_artefacts
from fastvlm_ops.ui import addresses

if TYPE_CHECKING:
    from fastvlm_ops.core.store import Store

FIRST = ("report.html", "report.md", "evidence.json", "journal.json", "probes.csv", "writes.csv")


@dataclass(frozen=True)
class Detail:
    """A drill.

    :param files: of evidence, as they are to be offered
    """

    record: DrillRecord
    files: list[Artefact]

    @property
    def summary(self) -> Mapping[str, Any]:
        """What its report noted in its row; empty while there is none."""
        return self.record.drill.summary or {}

    @property
    def timeline(self) -> Timeline:
        """As its report has it; of a drill that still runs, its steps."""
        return Timeline.from_json(self.summary.get("timeline")) or make_timeline(self.record)

    @property
    def users(self) -> UsersPicture | None:
        return users_picture(self.timeline, self.record.drill.rto_objective_seconds)

    @property
    def whole(self) -> DrillPicture | None:
        return drill_picture(self.timeline)

    def trends(self, root: str) -> list[TrendPicture]:
        """RTO and RPO over the last drills, each of which leads to its page.

        :param root: of the pages
        """
        return report.trends(self.record, lambda run_key: root + addresses.drill(run_key))

    @property
    def figures(self) -> list[Any]:
        return report.figures(self.record)

    @property
    def facts(self) -> list[tuple[str, str]]:
        return report.facts(self.record)

    @property
    def hit(self) -> list[tuple[str, str]]:
        return hit_facts(self.record.plan.fault)

    @property
    def hit_text(self) -> str:
        return describe_hit(self.record.plan.fault)

    def listed(self, name: str) -> list[Any]:
        """Return a list of the summary; empty where there is none.

        :param name: ``improvements``, ``lost``, ``problems``, ``unknowns`` or ``notes``
        """
        found = self.summary.get(name)
        return found if isinstance(found, list) else []


def read_detail(store: Store, run_key: str) -> Detail:
    """Read a drill.

    :param store: the operations database
    :param run_key: ``<dag id>/<run id>``
    :raises DrillError: there is none
    """
    record = read_record(store, run_key)
    order = {name: place for place, name in enumerate(FIRST)}
    files = sorted(
        list_artefacts(store, run_key), key=lambda one: (order.get(one.name, len(order)), one.name)
    )
    return Detail(record, files)


def read_evidence(store: Store, run_key: str, name: str) -> tuple[Artefact, bytes] | None:
    """Return a file of evidence with its bytes, checked against its hash; None where there is none.

    :param store: the operations database
    :param run_key: of the drill
    :param name: of the file
    :raises Exception: the storage cannot be reached, or has other bytes
    """
    from fastvlm_ops.hooks.s3 import BackupRepositoryHook

    if not any(one.name == name for one in list_artefacts(store, run_key)):
        return None
    hook = BackupRepositoryHook()
    place = hook.settings
    artefacts = ArtefactStore(store, hook.get_client(), bucket=place.bucket, prefix=place.prefix)
    found = artefacts.find(run_key, name)
    return None if found is None else (found, artefacts.get(found))
