"""Processes that outlive the task that starts them: in a session of their own, and nobody's child."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from fastvlm_ops.core.disaster_recovery.errors import DrillError

_PACKAGES = Path(__file__).resolve().parents[3]
_START_SECONDS = 30


def leave() -> None:
    """Leave the session and the parent, so that nothing that ends these ends this process too."""
    if os.fork():
        os._exit(0)
    os.setsid()
    os.umask(0o077)


def start_detached(
    module: str, argument: Path, *, log: Path, told: str = "", environment: Mapping[str, str] | None = None
) -> None:
    """Start a module of this package as a process that calls :func:`leave`.

    :param module: its full name
    :param argument: its only one
    :param log: file that its output is added to
    :param told: what it reads from its standard input
    :param environment: besides this process's own
    :raises DrillError: it did not start
    """
    # Nothing of Airflow: it holds connections, and none of it is imported.
    own = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    paths = [str(_PACKAGES), *filter(None, [own.get("PYTHONPATH")])]
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "ab") as output:
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", module, str(argument.absolute())],
            env={**own, **(environment or {}), "PYTHONPATH": os.pathsep.join(paths)},
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        child.communicate(told.encode(), timeout=_START_SECONDS)  # it forks, and its parent ends
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
        raise DrillError(f"{module} did not start within {_START_SECONDS} s; see {log}") from None
    if child.returncode:
        raise DrillError(f"{module} could not start (status {child.returncode}); see {log}")
