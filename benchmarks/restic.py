"""The peer restic: from PATH, else from the distribution's package, unpacked and not installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

_TIMEOUT_SECONDS = 180


class PeerUnavailableError(Exception):
    """A peer cannot be had here."""


def find_restic(cache: Path) -> Path:
    """Return restic's program.

    :param cache: folder that a package is unpacked to, and found in the next time
    :raises PeerUnavailableError: it is neither on PATH nor to be had from the distribution
    """
    if found := shutil.which("restic"):
        return Path(found)
    program = cache / "usr" / "bin" / "restic"
    if not program.is_file():
        _unpack_package(cache)
    if not os.access(program, os.X_OK):
        raise PeerUnavailableError(
            "restic could not be run: the distribution's package has no usr/bin/restic"
        )
    return program


def restic_version(program: Path) -> str:
    """Return the version, as in ``0.14.0``."""
    done = subprocess.run([program, "version"], capture_output=True, text=True, check=True, timeout=30)
    return done.stdout.split()[1]


def _unpack_package(cache: Path) -> None:
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise PeerUnavailableError("restic could not be run: it is not on PATH, and there is no apt-get")
    cache.mkdir(parents=True, exist_ok=True)
    problem = _run(["apt-get", "download", "restic"], cache)
    if problem and os.geteuid() == 0:  # no list of packages yet
        problem = _run(["apt-get", "update", "-qq"], cache) or _run(["apt-get", "download", "restic"], cache)
    packages = sorted(cache.glob("restic_*.deb"))
    if problem or not packages:
        raise PeerUnavailableError(f"restic could not be run: it is not on PATH; {problem or 'no package'}")
    if problem := _run(["dpkg-deb", "-x", packages[-1].name, "."], cache):
        raise PeerUnavailableError(f"restic could not be run: {problem}")


def _run(command: list[str], folder: Path) -> str:
    """Run a command; returns what went wrong, or nothing."""
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return f"{' '.join(command)} took more than {_TIMEOUT_SECONDS} s"
    if done.returncode == 0:
        return ""
    last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    return f"{' '.join(command)}: {last}"
