"""Starts the parts of the demo service, and starts again what dies, but for databases.

Run as a program with a file of its settings. It is told by its socket, see :mod:`control_app`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fastvlm_ops.core.programs.proc import ProcessId, marked
from fastvlm_ops.core.services.instances import Instance, Marker, ProcessIdentity, ServiceView
from fastvlm_ops.local.ports import HOST, bypass_proxies, free_ports
from fastvlm_ops.local.processes import Processes, ProcessStartError
from fastvlm_ops.local.service.app import DATABASE_VARIABLE
from fastvlm_ops.local.service.control_app import make_control_app
from fastvlm_ops.local.service.database_pair import DatabasePair
from fastvlm_ops.local.service.databases import Databases
from fastvlm_ops.local.service.layout import (
    BALANCER,
    LINKS,
    OBJECT_STORE,
    REPLICAS,
    SERVICE_MARKER,
    SERVICE_NAME,
    Layout,
    SupervisorSettings,
)
from fastvlm_ops.local.service.links import Disturbed, LinkPlan
from fastvlm_ops.local.service.remembering import Remembered, RememberedPart, recall, remember
from fastvlm_ops.local.service.serving import ask, listen_on_socket, log_as_json, serve
from fastvlm_ops.local.service.supervised import Part, Supervised

PASSWORD_VARIABLE = "FASTVLM_OPS_DEMO_PASSWORD"  # noqa: S105 - a name
_WATCH_SECONDS = 0.1
_VIEW_SECONDS = 0.5
_ASK_SECONDS = 2.0

Answer = dict[str, dict[str, Any]] | None

log = logging.getLogger("fastvlm_ops.supervisor")


class Supervisor:
    """The supervisor of one service.

    :param settings: that it was started with
    :param password: of the databases
    """

    def __init__(self, settings: SupervisorSettings, password: str) -> None:
        self.settings = settings
        self.layout = Layout(Path(settings.folder))
        self.marker = Marker(service=SERVICE_NAME, environment=settings.environment)
        self._processes = Processes(Path(settings.state_folder))
        before = recall(self.layout.state_file)
        self._written = before
        pair = DatabasePair(
            self.layout.folder / "databases",
            settings.database_mode,
            password=password,
            processes=self._processes,
        )
        self.databases = Databases(pair)
        names = [BALANCER, *REPLICAS, *(f"link {name}" for name in self._link_names())]
        if before is not None and before.databases is not None:
            pair.resume(before.databases)
        self._ports = before.ports if before else dict(zip(names, free_ports(len(names)), strict=True))
        undisturbed = {name: Disturbed(disturbance=None) for name in self._link_names()}
        self.disturbed = undisturbed | (before.disturbed if before else {})
        self.parts = {part.name: self._supervised(part) for part in self._parts()}
        self._adopt(before)

    # -- running -------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Start everything, and supervise it until this process gets a signal; then stop everything."""
        with listen_on_socket(self.layout.control) as listener:
            tasks = [asyncio.create_task(self._begin()), asyncio.create_task(self._watch())]
            tasks += [asyncio.create_task(self._write_view())]
            for task in tasks:
                task.add_done_callback(_end_on_failure)
            try:
                await serve(make_control_app(self), listener)
            finally:
                for task in tasks:
                    task.cancel()
                await self._stop_all()
                await asyncio.gather(*tasks, return_exceptions=True)

    def _adopt(self, before: Remembered | None) -> None:
        """Take over what an earlier supervisor started, and end what it did not live to write down."""
        for name, remembered in (before.parts if before else {}).items():
            self.parts[name].adopt(remembered.identity.process if remembered.identity else None)
            self.parts[name].wanted = remembered.wanted
        known = {part.identity.pid for part in self.parts.values() if part.identity}
        for process in marked(SERVICE_MARKER, str(self.layout.folder)):
            if process.pid not in known and process.pid != os.getppid():
                process.signal(signal.SIGKILL)

    async def _begin(self) -> None:
        for part in self.parts.values():
            if part.wanted:
                part.start()
        if self._written is None or self._written.databases is None:
            await asyncio.to_thread(self.databases.pair.start)
        log.info("databases run")
        await self.databases.watch()

    async def _watch(self) -> None:
        owner = ProcessId(**self.settings.owner) if self.settings.owner else None
        while True:
            self._processes.reap()
            for part in self.parts.values():
                part.watch()
            self._remember()
            if owner is not None and not owner.alive:
                log.warning("the process that started the service has ended")
                os.kill(os.getpid(), signal.SIGTERM)
                return
            await asyncio.sleep(_WATCH_SECONDS)

    def _remember(self) -> None:
        try:
            scratch = self.databases.pair.scratch
        except ProcessStartError:
            scratch = None
        parts = {
            name: RememberedPart(
                wanted=part.wanted,
                identity=ProcessIdentity.of(part.identity) if part.identity else None,
            )
            for name, part in self.parts.items()
        }
        now = Remembered(ports=self._ports, parts=parts, disturbed=self.disturbed, databases=scratch)
        if now != self._written:
            remember(self.layout.state_file, now)
            self._written = now

    async def _stop_all(self) -> None:
        for part in self.parts.values():
            part.wanted = False
        await asyncio.gather(*(part.stop() for part in self.parts.values()), return_exceptions=True)
        await asyncio.to_thread(self.databases.pair.stop)
        self.layout.state_file.unlink(missing_ok=True)

    # -- what it says --------------------------------------------------------------------------------

    async def view(self) -> ServiceView:
        """Return the service as it is now."""
        rotation, links = await asyncio.gather(self._ask(BALANCER), self._ask(LINKS))
        instances = [self._instance(part, rotation, links) for part in self.parts.values()]
        instances += [self.databases.instance(name) for name in self.databases.pair.names]
        disturbed = {
            name: state["disturbance"] for name, state in (links or {}).items() if state["disturbance"]
        }
        return ServiceView(
            marker=self.marker,
            instances=tuple(instances),
            url=f"http://{self._address(BALANCER)}",
            places={name: str(path) for name, path in self.layout.places.items()},
            links=tuple(self._link_names()),
            link_addresses={name: self._address(f"link {name}") for name in self._link_names()},
            disturbed=None if links is None else disturbed,
        )

    def _instance(self, supervised: Supervised, rotation: Answer, links: Answer) -> Instance:
        part, identity = supervised.part, supervised.identity
        healthy: bool | None = True
        detail = ""
        if identity is None:
            healthy, detail = False, "does not run" if supervised.wanted else "was stopped"
        elif part.role == "replica":
            healthy, detail = _in_rotation(supervised, rotation)
        elif (rotation if part.name == BALANCER else links) is None:
            healthy, detail = False, "does not answer"
        return Instance(
            name=part.name,
            role=part.role,
            address=part.address if identity else None,
            identity=ProcessIdentity.of(identity) if identity else None,
            healthy=healthy,
            detail=detail,
        )

    async def _ask(self, name: str) -> Answer:
        if self.parts[name].identity is None:
            return None
        try:
            answer: dict[str, dict[str, Any]] = await ask(
                self.layout.socket(name), "/state", None, timeout_seconds=_ASK_SECONDS
            )
        except OSError:
            return None
        return answer

    async def _write_view(self) -> None:
        written = ""
        while True:
            text = (await self.view()).model_dump_json(indent=1)
            if text != written:
                temporary = self.layout.view_file.with_suffix(".tmp")
                temporary.touch(mode=0o600)
                temporary.write_text(text + "\n")
                temporary.replace(self.layout.view_file)
                written = text
            await asyncio.sleep(_VIEW_SECONDS)

    # -- links ---------------------------------------------------------------------------------------

    async def disturb(self, name: str, how: Disturbed) -> None:
        """Disturb a link, or soothe it.

        :param name: of the link
        :param how: from now on
        :raises OSError: the process of the links does not answer; when it is started again, it does so
        """
        self.disturbed[name] = how
        self._write_link_plans()
        await ask(
            self.layout.socket(LINKS), f"/links/{name}", how.model_dump(), timeout_seconds=5 * _ASK_SECONDS
        )

    def _link_names(self) -> list[str]:
        store = [OBJECT_STORE] if self.settings.object_store_url else []
        return [*REPLICAS, *self.databases.pair.names, *store]

    def _write_link_plans(self) -> None:
        targets = {name: (HOST, self._ports[name]) for name in REPLICAS}
        targets |= {name: (HOST, self.databases.pair.port(name)) for name in self.databases.pair.names}
        if self.settings.object_store_url:
            targets[OBJECT_STORE] = _host_and_port(self.settings.object_store_url)
        plans = {
            name: LinkPlan(
                port=self._ports[f"link {name}"], host=host, target_port=port, disturbed=self.disturbed[name]
            ).model_dump()
            for name, (host, port) in targets.items()
        }
        file = self._link_plans
        temporary = file.with_suffix(".tmp")
        temporary.write_text(json.dumps(plans, indent=1))
        temporary.replace(file)

    @property
    def _link_plans(self) -> Path:
        return self.layout.folder / "control" / "links.json"

    # -- parts ---------------------------------------------------------------------------------------

    def _supervised(self, part: Part) -> Supervised:
        prepare = self._write_link_plans if part.name == LINKS else lambda: None
        log_file = self.layout.logs / f"{part.name}.log"
        return Supervised(part, self._processes, log_file, self.settings.restart_delay_seconds, prepare)

    def _parts(self) -> list[Part]:
        links = ["--plans", str(self._link_plans), "--socket", str(self.layout.socket(LINKS))]
        replicas = {name: self._ports[f"link {name}"] for name in REPLICAS}
        balancer = ["--port", str(self._ports[BALANCER]), "--socket", str(self.layout.socket(BALANCER))]
        balancer += ["--replicas", json.dumps(replicas)]
        return [
            Part(LINKS, "other", None, _command("links", links), self._environment()),
            Part(
                BALANCER,
                "proxy",
                self._address(BALANCER),
                _command("balancer", balancer),
                self._environment(),
            ),
            *(self._replica(name) for name in REPLICAS),
        ]

    def _replica(self, name: str) -> Part:
        arguments = ["--folder", str(self.layout.folder), "--name", name]
        arguments += ["--environment", self.settings.environment, "--port", str(self._ports[name])]
        environment = self._environment() | {DATABASE_VARIABLE: self._conninfo()}
        return Part(name, "replica", self._address(name), _command("app", arguments), environment)

    def _conninfo(self) -> str:
        """libpq's address of the databases, by way of their links; with the password."""
        pair = self.databases.pair
        ports = ",".join(str(self._ports[f"link {name}"]) for name in pair.names)
        hosts = ",".join(HOST for _ in pair.names)
        return f"host={hosts} port={ports} dbname={pair.database} user={pair.user} password={pair.password}"

    def _environment(self) -> dict[str, str]:
        environment = {name: value for name, value in os.environ.items() if name != PASSWORD_VARIABLE}
        return environment | {SERVICE_MARKER: str(self.layout.folder)}

    def _address(self, port: str) -> str:
        return f"{HOST}:{self._ports[port]}"


def _in_rotation(supervised: Supervised, rotation: Answer) -> tuple[bool | None, str]:
    if rotation is None:
        return None, "the balancer does not say whether it is in rotation"
    state = rotation[supervised.part.name]
    if state["in_rotation"] and state["ready_at"] < supervised.began:
        return False, "the balancer has not found it ready since it was started"
    return state["in_rotation"], state["detail"]


def _host_and_port(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    if parts.hostname is None:
        raise ValueError(f"{url!r} is no URL of an object store")
    return parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)


def _command(module: str, arguments: list[str]) -> list[str]:
    return [sys.executable, "-m", f"fastvlm_ops.local.service.{module}", *arguments]


def _end_on_failure(task: asyncio.Task[None]) -> None:
    """A supervisor that cannot do a part of its work must not look as if it did."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("cannot go on", exc_info=error)
        os.kill(os.getpid(), signal.SIGTERM)


def main(arguments: list[str] | None = None) -> None:
    """Supervise a demo service until a signal comes."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("settings", type=Path)
    options = parser.parse_args(arguments)
    log_as_json(instance="supervisor")
    bypass_proxies()
    settings = SupervisorSettings(**json.loads(options.settings.read_text()))
    asyncio.run(Supervisor(settings, os.environ[PASSWORD_VARIABLE]).run())


if __name__ == "__main__":
    main()
