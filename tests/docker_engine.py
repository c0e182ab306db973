"""A real Docker engine of its own for tests, unpacked by scripts/docker.sh, with an image made here.

It runs in namespaces of processes, mounts and network of its own: what it mounts is seen by nobody else, it
reaches and is reached by nothing but its socket, and when its first process dies the kernel kills the rest,
containers too.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

import docker
from docker.errors import DockerException

from fastvlm_ops.core.programs.proc import ProcessId, session_members
from fastvlm_ops.local.processes import Process, Processes, ProcessStartError, tail

IMAGE = "fastvlm-ops-test:1"
_UNPACKED = Path(sys.prefix).parent / ".tools" / "docker"
_CGROUPS = Path("/sys/fs/cgroup")
_START_SECONDS = 20
# The engine's helpers have sockets in /run, whatever they are told: it is an empty one of its own.
_INSIDE = 'mount -t tmpfs tmpfs /run && exec "$@"'


class NoEngineError(Exception):
    """No engine can be started here; the message says why."""


class DockerEngine:
    """An engine, from ``start`` to ``stop``; as a context manager too."""

    def __init__(self) -> None:
        # Not below pytest's own folders: the path of a Unix socket may have 107 characters only.
        self.folder = Path(tempfile.mkdtemp(prefix="engine-"))
        self.socket = self.folder / "docker.sock"
        self.cgroup = f"fastvlm-ops-test-{uuid.uuid4().hex[:12]}"
        self._processes = Processes(self.folder)
        self._process: Process | None = None

    def __enter__(self) -> DockerEngine:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def address(self, service: str) -> str:
        """Return the address of a service in this engine."""
        return f"docker:unix://{self.socket}?service={service}"

    def client(self) -> Any:
        """Return a client of the engine's API."""
        return docker.DockerClient(base_url=f"unix://{self.socket}", timeout=20)

    def members(self) -> list[ProcessId]:
        """Return the processes of the engine's session, the engine itself among them."""
        return list(session_members(self._process.id)) if self._process else []

    def start(self) -> None:
        """Start the engine and make the image.

        :raises NoEngineError: this machine does not let it start
        """
        _check_possible()
        self._process = self._processes.start(
            "Docker engine",
            self._arguments(),
            environment=_environment(),
            log=self.folder / "engine.log",
            die_with_parent=True,
        )
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                self._process.check()
                with contextlib.closing(self.client()) as client:
                    _make_image(client)
                return
            except ProcessStartError as error:
                raise NoEngineError(str(error)) from error
            except (DockerException, OSError) as error:
                if time.monotonic() > deadline:
                    log = tail(self._process.log)
                    raise NoEngineError(f"the engine did not answer: {error}\n{log}") from error
                time.sleep(0.05)

    def stop(self) -> None:
        """Kill the engine by its own process, and with it all that it started, and remove its files."""
        left = self._processes.stop(patience_seconds=0)
        deadline = time.monotonic() + 10
        # A folder of a cgroup can be removed once the kernel has seen the end of its processes.
        while self.cgroups() and time.monotonic() < deadline:
            for folder in self.cgroups():
                for path, _, _ in os.walk(folder, topdown=False):
                    with contextlib.suppress(OSError):
                        os.rmdir(path)
            time.sleep(0.02)
        shutil.rmtree(self.folder, ignore_errors=True)
        assert not left, f"processes of the engine are left: {left}"

    def cgroups(self) -> list[Path]:
        """Return the folders of this engine's cgroups."""
        return sorted([*_CGROUPS.glob(self.cgroup), *_CGROUPS.glob(f"*/{self.cgroup}")])

    def _arguments(self) -> list[str | Path]:
        namespaces = ["--mount", "--pid", "--net", "--fork", "--kill-child=KILL", "--mount-proc"]
        return [
            *("unshare", *namespaces, "sh", "-c", _INSIDE, "-", "dockerd"),
            *("--data-root", self.folder / "data", "--exec-root", "/run/docker"),
            *("--pidfile", self.folder / "docker.pid", "--host", f"unix://{self.socket}"),
            *("--bridge", "none", "--iptables=false", "--ip6tables=false", "--ip-forward=false"),
            *("--storage-driver", "vfs", "--exec-opt", "native.cgroupdriver=cgroupfs"),
            *("--cgroup-parent", f"/{self.cgroup}", "--log-level", "warn"),
        ]


def _check_possible() -> None:
    if sys.platform != "linux" or os.geteuid() != 0:
        raise NoEngineError("only root on Linux can start a Docker engine with namespaces of its own")
    if not (_UNPACKED / "usr" / "sbin" / "dockerd").exists():
        raise NoEngineError("scripts/docker.sh has not unpacked a Docker engine into .tools/docker")
    tried = subprocess.run(
        ["unshare", "--mount", "--pid", "--net", "--fork", "--mount-proc", "true"], capture_output=True
    )
    if tried.returncode:
        raise NoEngineError(f"namespaces of its own are not permitted: {tried.stderr.decode().strip()}")


def _environment() -> dict[str, str]:
    folders = [_UNPACKED / part for part in ("usr/sbin", "usr/bin")]
    libraries = [*_UNPACKED.glob("usr/lib/*-linux-gnu"), *_UNPACKED.glob("lib/*-linux-gnu")]
    return {
        "PATH": os.pathsep.join([*map(str, folders), "/usr/sbin", "/usr/bin", "/sbin", "/bin"]),
        "LD_LIBRARY_PATH": os.pathsep.join(map(str, libraries)),
    }


def _make_image(client: Any) -> None:
    """Make the image: a static busybox and nothing else, for no image can be pulled."""
    busybox = next(path for part in ("bin", "usr/bin") if (path := _UNPACKED / part / "busybox").exists())
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name in ("bin", "tmp", "proc", "sys", "dev", "etc"):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(folder)
        program = tarfile.TarInfo("bin/busybox")
        program.mode, program.size = 0o755, busybox.stat().st_size
        with busybox.open("rb") as contents:
            tar.addfile(program, contents)
    repository, _, tag = IMAGE.partition(":")
    client.api.import_image_from_data(archive.getvalue(), repository=repository, tag=tag)
    client.images.get(IMAGE)
