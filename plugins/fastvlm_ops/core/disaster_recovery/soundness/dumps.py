"""What pg_dump wrote into a folder: whether pg_restore can read all of it."""

from __future__ import annotations

import os
from pathlib import Path

from fastvlm_ops.core.disaster_recovery.soundness.findings import Soundness

_CONTENTS = "toc.dat"
_SECONDS = 3600.0


def is_dump(folder: Path) -> bool:
    """Return whether a folder is one that pg_dump wrote.

    :param folder: that was restored
    """
    return (folder / _CONTENTS).is_file()


def check_dump(folder: Path, found: Soundness, programs: Path | None) -> None:
    """Have pg_restore read a dump to its end.

    :param folder: of the dump
    :param found: where it is added
    :param programs: the only folder of PostgreSQL's programs; None for the usual places
    """
    from fastvlm_ops.core.backup.errors import SourceError
    from fastvlm_ops.core.backup.postgresql.programs import find_programs
    from fastvlm_ops.core.programs import ProgramError, run

    try:
        program = find_programs(1, folder=programs, needed=("pg_restore",)).path("pg_restore")
    except SourceError as error:
        found.unchecked.append(f"dump: {error}")
        return
    try:
        run(
            [program, "--format=directory", f"--file={os.devnull}", os.fspath(folder)],
            name="pg_restore",
            environment={"PATH": os.defpath, "LC_ALL": "C"},
            timeout_seconds=_SECONDS,
        )
    except ProgramError as error:
        found.problems.append(f"the dump cannot be used: {error}: {error.tail()}")
    else:
        found.counts["dumps"] += 1
