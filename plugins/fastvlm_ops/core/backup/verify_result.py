"""What a verification found: damaged objects, and the snapshots and files that need them."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from fastvlm_ops.core.backup.progress import format_bytes
from fastvlm_ops.core.backup.usage import Usage

Level = Literal["log", "listing", "head", "share", "full", "members"]
Share = tuple[int, int]

LISTED = 50
ALL_FRAMES = range(1 << 16)


@dataclass(frozen=True)
class Problem:
    """Something wrong with an object. ``needed`` is False when every snapshot restores without it."""

    object: str
    what: str
    needed: bool = True


@dataclass(frozen=True)
class HitSnapshot:
    """A snapshot that cannot be restored whole; ``files`` counts those of its files that need damage."""

    snapshot_id: str
    component: str
    files: int
    what: str


@dataclass(frozen=True)
class HitFile:
    """A file that cannot be restored."""

    path: str
    snapshot_id: str
    component: str
    what: str


@dataclass(frozen=True)
class SampledFile:
    """A file that was restored on trial, and had the hash it was backed up with."""

    path: str
    snapshot_id: str
    size_bytes: int


@dataclass(frozen=True)
class VerifyResult:
    """Outcome of a verification. Sizes in bytes.

    ``ok`` says that every snapshot that counts is intact, as far as ``level`` looks: no object that one
    of them needs has a problem. Damage that nothing needs (what a killed run left, or a pack whose chunks
    have another intact copy) is listed in ``problems`` with ``needed`` False, and leaves ``ok`` True.
    Lists are bounded to 50, their counts are not.

    ``checked_bytes`` are the sizes of the objects that were looked at, ``read_bytes`` what was fetched.
    ``packs_without_checksum`` were checked by size alone, as the endpoint keeps no SHA-256 of them.
    ``usage`` counts the requests of the verification.
    ``nearest_intact`` names for each component the newest snapshot that needs nothing damaged.
    """

    ok: bool
    level: Level
    share: Share | None
    checked_snapshots: int
    checked_objects: int
    checked_bytes: int
    read_bytes: int
    packs_without_checksum: int
    duration_seconds: float
    problem_count: int = 0
    problems: tuple[Problem, ...] = ()
    snapshot_count: int = 0
    snapshots: tuple[HitSnapshot, ...] = ()
    file_count: int = 0
    files: tuple[HitFile, ...] = ()
    nearest_intact: Mapping[str, str | None] = field(default_factory=dict)
    sampled: tuple[SampledFile, ...] = ()
    usage: Usage | None = field(default=None, compare=False)

    def as_dict(self) -> dict[str, Any]:
        content = asdict(self)
        for name in ("problems", "snapshots", "files", "sampled"):
            content[name] = list(content[name])
        content["share"] = None if self.share is None else list(self.share)
        return content

    def text(self) -> str:
        """For a log or a message: a line of outcome, then what is damaged and what that hits."""
        share = "" if self.share is None else f" {self.share[0] + 1} of {self.share[1]}"
        lines = [
            f"verify {self.level}{share}: {'ok' if self.ok else 'DAMAGED'}, "
            f"{_count(self.checked_snapshots, 'snapshot')}, "
            f"{_count(self.checked_objects, 'object')} of {format_bytes(self.checked_bytes)}, "
            f"{format_bytes(self.read_bytes)} read, {self.duration_seconds:.0f} s"
        ]
        if self.packs_without_checksum:
            lines.append(
                f"{_count(self.packs_without_checksum, 'pack')} checked by size alone: no checksum is kept"
            )
        for problem in self.problems:
            lines.append(f"{problem.object}: {problem.what}{'' if problem.needed else ' (nothing needs it)'}")
        lines += _more(self.problem_count, self.problems)
        for hit in self.snapshots:
            lines.append(
                f"snapshot {hit.snapshot_id}: {_count(hit.files, 'file')} cannot be restored: {hit.what}"
            )
        lines += _more(self.snapshot_count, self.snapshots)
        lines += [f"file {file.path} of {file.snapshot_id}: {file.what}" for file in self.files]
        lines += _more(self.file_count, self.files)
        if self.snapshots:
            for component, snapshot_id in self.nearest_intact.items():
                lines.append(f"newest intact snapshot of {component}: {snapshot_id or 'none'}")
        return "\n".join(lines)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _more(count: int, listed: tuple[Any, ...]) -> list[str]:
    return [f"… and {count - len(listed)} more"] if count > len(listed) else []


@dataclass(frozen=True)
class PackDamage:
    """What is wrong with a pack, and which of its frames cannot be read."""

    what: str
    frames: Container[int] = ALL_FRAMES


class Findings:
    """Collects what the checks find, from one thread."""

    def __init__(self) -> None:
        self.packs: dict[str, PackDamage] = {}
        self.needed_packs: set[str] = set()
        self.snapshots: dict[str, HitSnapshot] = {}
        self.files: list[HitFile] = []
        self.sampled: list[SampledFile] = []
        self.packs_without_checksum = 0
        self.blocked: list[str] = []
        self._problems: dict[str, Problem] = {}

    def problem(self, name: str, what: str, *, needed: bool = True, blocks: bool = False) -> None:
        """Note a problem; one that ``blocks`` keeps every snapshot from being opened."""
        self._problems.setdefault(name, Problem(name, what, needed))
        if blocks:
            self.blocked.append(name)

    def hit(self, snapshot: HitSnapshot, files: Iterable[HitFile] = ()) -> None:
        if snapshot.snapshot_id in self.snapshots:  # for a reason that says more
            return
        self.snapshots[snapshot.snapshot_id] = snapshot
        self.files += list(files)[: LISTED - len(self.files)]

    def problems(self) -> list[Problem]:
        """All problems, those that matter first."""
        packs = [Problem(name, damage.what, name in self.needed_packs) for name, damage in self.packs.items()]
        return sorted([*self._problems.values(), *packs], key=lambda problem: not problem.needed)
