"""A real Prometheus on loopback: the distribution's program, unpacked by scripts/prometheus.sh."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from fastvlm_ops.core.programs.running import ProgramError, run
from fastvlm_ops.local.ports import HOST, bypass_proxies, free_ports
from fastvlm_ops.local.processes import Process, Processes, ProcessStartError

if TYPE_CHECKING:
    from types import TracebackType

RETENTION = "400d"
# promtool's own, of two hours, make a thousand blocks of half a year, and it reads the file for each of them.
_BLOCK = "744h"
_LOAD_SECONDS = 900
_STOP_SECONDS = 10


class Prometheus:
    """A Prometheus server that scrapes itself and what it is told to.

    :param folder: for its configuration, data and log; made where absent. The data stays from one start to
        the next.
    :param config: ``include/observability/prometheus/prometheus.yml``; rules are read from beside it
    :param targets: addresses to scrape, as in ``127.0.0.1:9324``, by the name of a job in that file
    :param processes: that keeps its process; its own, in ``folder``, unless given
    :param die_with_parent: whether the kernel ends it with this process, as tests want it
    :param memory_mib: soft limit
    """

    def __init__(
        self,
        folder: Path,
        *,
        config: Path,
        targets: Mapping[str, Sequence[str]] | None = None,
        processes: Processes | None = None,
        die_with_parent: bool = False,
        memory_mib: int = 512,
    ) -> None:
        self.folder = folder.resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.processes = processes or Processes(self.folder)
        self.targets = dict(targets or {})
        self.data = self.folder / "data"
        self._config = config
        self._die_with_parent = die_with_parent
        self._memory_mib = memory_mib
        self._port = 0
        self._process: Process | None = None

    @property
    def url(self) -> str:
        """The server's address."""
        return f"http://{HOST}:{self._port}"

    def __enter__(self) -> Prometheus:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def load(self, file: Path) -> None:
        """Add samples to the data. Not while it runs.

        :param file: in OpenMetrics' text format, with times
        :raises ProcessStartError: promtool is not there, or refuses the file
        """
        self.data.mkdir(parents=True, exist_ok=True)
        arguments = ["tsdb", "create-blocks-from", f"--max-block-duration={_BLOCK}", "openmetrics", "-q"]
        try:
            run(
                [str(program("promtool")), *arguments, str(file), str(self.data)],
                name="promtool",
                environment=self._environment(),
                timeout_seconds=_LOAD_SECONDS,
                folder=self.folder,
            )
        except ProgramError as error:
            raise ProcessStartError(f"{error}:\n{error.tail()}") from error

    def start(self, *, timeout_seconds: float = 60) -> None:
        """Start it and wait until it answers.

        :raises ProcessStartError: it is not there, ended, or was not ready in time
        """
        bypass_proxies()
        for attempts_left in (2, 1, 0):
            try:
                return self._start(timeout_seconds)
            except ProcessStartError:
                # Another program can take a port between our picking it and the server's using it.
                if not attempts_left:
                    raise

    def stop(self) -> None:
        """Stop it: it is asked first, so that what it scraped last is kept, and killed where it stays."""
        if self._process is None:
            return
        process, self._process = self._process, None
        process.id.signal(signal.SIGTERM)
        deadline = time.monotonic() + _STOP_SECONDS
        while process.id.alive and time.monotonic() < deadline:
            time.sleep(0.02)
        process.id.signal(signal.SIGKILL)
        self.processes.wait(process)

    def connection(self) -> dict[str, Any]:
        """The fields of the connection ``fastvlm_prometheus`` to it."""
        return {"conn_type": "fastvlm_prometheus", "host": self.url}

    def _start(self, timeout_seconds: float) -> None:
        (self._port,) = free_ports(1)
        arguments: list[str | Path] = [
            program("prometheus"),
            f"--config.file={self._write_config()}",
            f"--storage.tsdb.path={self.data}",
            f"--storage.tsdb.retention.time={RETENTION}",
            f"--web.listen-address={HOST}:{self._port}",
            f"--web.cors.origin={self.url}",  # else any page in the user's browser may read it
            "--log.level=warn",
        ]
        assets = program("prometheus").parents[1] / "share" / "prometheus" / "web"
        if assets.is_dir():  # of Debian's package, which looks for them where it would be installed
            arguments.append(f"--web.local-assets={assets}")
        self._process = self.processes.start(
            "prometheus",
            arguments,
            environment=self._environment(),
            log=self.folder / "logs" / "prometheus.log",
            folder=self.folder,
            die_with_parent=self._die_with_parent,
        )
        try:
            self._wait(self._process, time.monotonic() + timeout_seconds)
        except BaseException:
            self.stop()
            raise

    def _wait(self, process: Process, deadline: float) -> None:
        while not self._ready():
            process.check()
            if time.monotonic() > deadline:
                raise ProcessStartError(f"Prometheus was not ready in time; log: {process.log}")
            time.sleep(0.05)

    def _ready(self) -> bool:
        # Not urllib, which asks the proxy that the environment names.
        connection = http.client.HTTPConnection(HOST, self._port, timeout=5)
        try:
            connection.request("GET", "/-/ready")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _write_config(self) -> Path:
        """Write the configuration, less what is another machine's: its own address, and the targets."""
        folder = self.folder / "config"
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "targets").mkdir(parents=True)
        for rules in self._config.parent.glob("*.rules.yaml"):
            shutil.copy(rules, folder)
        config = yaml.safe_load(self._config.read_text())
        jobs = {job["job_name"]: job for job in config["scrape_configs"]}
        for name, addresses in self.targets.items():
            if name not in jobs:
                raise ProcessStartError(f"{self._config} has no job {name!r}; it has {', '.join(jobs)}")
            text = json.dumps([{"targets": list(addresses)}])
            (folder / "targets" / f"{name}.json").write_text(text)
        jobs["prometheus"]["static_configs"] = [{"targets": [f"{HOST}:{self._port}"]}]
        file = folder / "prometheus.yml"
        file.write_text(yaml.safe_dump(config, sort_keys=False))
        return file

    def _environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self.folder),
            "TMPDIR": str(self.folder),
            "GOMEMLIMIT": f"{self._memory_mib}MiB",
        }


def program(name: str) -> Path:
    """Return a program of Prometheus's.

    :param name: ``prometheus`` or ``promtool``
    :raises ProcessStartError: it is not there
    """
    # Beside the .venv of the project, where scripts/prometheus.sh puts it.
    unpacked = Path(sys.prefix).parent / ".tools" / "prometheus" / "usr" / "bin"
    if found := shutil.which(name) or shutil.which(name, path=str(unpacked)):
        return Path(found).resolve()
    raise ProcessStartError(f"{name} is neither on PATH nor in {unpacked}; scripts/prometheus.sh fetches it")
