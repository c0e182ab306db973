"""``fastvlm-ops init``: the package's files into an Airflow, and its pools."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import fastvlm_ops
from fastvlm_ops.cli.errors import CommandError
from fastvlm_ops.cli.places import Places
from fastvlm_ops.cli.shipped import shipped_files
from fastvlm_ops.cli.starting import COMPONENTS, components_text

RECORD = ".fastvlm-ops.json"  # in the folder of definition files; hidden, so that it is no definition

What = Literal["written", "renewed", "unchanged", "kept", "kept, new version beside it", "removed"]
_SILENT: tuple[What, ...] = ("unchanged",)


@dataclass(frozen=True)
class Step:
    """What happens to one file.

    :param name: among the shipped files
    :param path: where it belongs
    :param what: ``kept``: a person has edited it, and the shipped one is the one that was edited;
        ``removed``: a person has removed it
    :param data: what is to stand there, or beside it as ``.new``
    """

    name: str
    path: Path
    what: What
    data: bytes


def run(
    *,
    into: Path | None,
    back_up: Sequence[str],
    bring_back: bool,
    dry_run: bool,
    tell: Callable[[str], None],
) -> int:
    """Write what is missing or out of date, and say what was done.

    :param into: the folder to write below; this Airflow's own folders where None
    :param back_up: components as ``NAME=PATH``, for a ``components.yaml`` that nobody has edited
    :param bring_back: whether to write files again that a person removed
    :param dry_run: whether only to say what would be done
    :param tell: takes one line
    :returns: the exit code, 0
    :raises CommandError: a file cannot be written, or the pools cannot be created
    """
    places = Places.of_airflow() if into is None else Places.below(into.absolute())
    components = components_text(back_up)
    steps = plan(places, components, bring_back=bring_back)
    for step in steps:
        if step.what not in _SILENT:
            tell(f"{step.what}: {step.path}")
    if all(step.what in _SILENT for step in steps):
        tell("all files are as this version has them")
    if not dry_run:
        _carry_out(places, steps, has_own_components=components is not None)
    if into is None:
        tell(_pools(dry_run))
    for line in _next_steps(steps, has_own_components=components is not None):
        tell(line)
    return 0


def plan(places: Places, components: bytes | None = None, *, bring_back: bool = False) -> list[Step]:
    """Say what ``init`` would do; nothing is written.

    :param places: of this Airflow
    :param components: contents of ``components.yaml``, instead of the shipped one
    :param bring_back: whether to write files again that a person removed
    :raises CommandError: a link leads elsewhere, or ``components.yaml`` has been edited and another one is
        asked for
    """
    recorded = _recorded(places)
    steps = []
    for name, shipped in shipped_files().items():
        path = places.file(name)
        _refuse_links(places, name)
        current = _read(path)
        if name == COMPONENTS and components is not None:
            steps.append(_own_components(path, current, components, recorded.get(name), shipped))
            continue
        steps.append(Step(name, path, _what(current, shipped, recorded.get(name), bring_back), shipped))
    return steps


def _what(current: bytes | None, shipped: bytes, recorded: str | None, bring_back: bool) -> What:
    if current is None:
        return "removed" if recorded and not bring_back else "written"
    if current == shipped:
        return "unchanged"
    if _digest(current) == recorded:
        return "renewed"
    return "kept" if _digest(shipped) == recorded else "kept, new version beside it"


def _own_components(
    path: Path, current: bytes | None, wanted: bytes, recorded: str | None, shipped: bytes
) -> Step:
    if current == wanted:
        return Step(COMPONENTS, path, "unchanged", wanted)
    if current is None or current == shipped or _digest(current) == recorded:
        return Step(COMPONENTS, path, "written", wanted)
    raise CommandError(f"{path} has been edited and is not replaced; add the component there by hand")


def _carry_out(places: Places, steps: list[Step], *, has_own_components: bool) -> None:
    recorded = _recorded(places)
    for step in steps:
        if step.what in ("written", "renewed"):
            _write(step.path, step.data)
        elif step.what == "kept, new version beside it":
            _write(step.path.with_name(f"{step.path.name}.new"), step.data)
        # Of a components.yaml made to order the shipped one is recorded: it counts as edited from now on.
        ours = step.data if step.name != COMPONENTS or not has_own_components else shipped_files()[COMPONENTS]
        recorded[step.name] = _digest(ours)
    record = {"version": fastvlm_ops.__version__, "files": dict(sorted(recorded.items()))}
    _write(places.include / RECORD, (json.dumps(record, indent=1) + "\n").encode())


def _recorded(places: Places) -> dict[str, str]:
    """Hashes of the shipped files as they were when ``init`` last ran, by name."""
    path = places.include / RECORD
    data = _read(path)
    if data is None:
        return {}
    try:
        files = json.loads(data)["files"]
        return {str(name): str(digest) for name, digest in files.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise CommandError(
            f"{path}, which says what init wrote, cannot be read; remove it, and files that differ from"
            " this version's will count as edited"
        ) from None


def _refuse_links(places: Places, name: str) -> None:
    """:raises CommandError: the file, or a folder on the way to it, is a link, so that it is elsewhere"""
    part, *rest = name.split("/")
    path: Path = getattr(places, part)
    for step in rest:
        path = path / step
        if path.is_symlink():
            raise CommandError(
                f"{path} is a link, and init writes only into its own folders; replace it first"
            )


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror}") from error


def _write(path: Path, data: bytes) -> None:
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                os.fchmod(file.fileno(), 0o644)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CommandError(f"{path} cannot be written: {error.strerror}") from error


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _pools(dry_run: bool) -> str:
    from sqlalchemy.exc import SQLAlchemyError

    from fastvlm_ops.cli.pools import create_pools, missing_pools

    try:
        missing = missing_pools()
        if not dry_run:
            create_pools(missing)
    except SQLAlchemyError as error:
        reason = str(error).splitlines()[0]
        raise CommandError(
            f"the files are in place, but Airflow's database has no pools ({reason}); run airflow db migrate,"
            " then fastvlm-ops init again"
        ) from error
    names = ", ".join(pool.name for pool in missing)
    return f"pools created: {names}" if missing else "all pools are there"


def _next_steps(steps: list[Step], *, has_own_components: bool) -> Iterator[str]:
    yield ""
    components = next(step for step in steps if step.name == COMPONENTS)
    beside = [step.path for step in steps if step.what == "kept, new version beside it"]
    if beside:
        yield f"Next: bring what is new in {', '.join(f'{path.name}.new' for path in beside)} over by hand."
    if not has_own_components and components.what in ("written", "renewed"):
        yield f"Next: say in {components.path} what is to be backed up; what stands there is an example."
    yield "Next: fastvlm-ops doctor says what else is needed."
