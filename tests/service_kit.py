"""What tests of the demo service share: users who keep asking it, and waiting for what it becomes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import httpx

if TYPE_CHECKING:
    from fastvlm_ops.core.services.instances import Instance
    from fastvlm_ops.local.service.demo_service import DemoService

QUESTION = {"text": "what is in this picture"}
_ASK_SECONDS = 5.0
_EVERY_SECONDS = 0.1

Found = TypeVar("Found")


def until(look: Callable[[], Found], *, seconds: float = 60) -> Found:
    """Return what is found, as soon as it is something."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.05)
    return found


def instance(service: DemoService, name: str) -> Instance:
    return service.control.view().instance(name)


def is_healthy(service: DemoService, name: str) -> bool:
    return instance(service, name).healthy is True


def is_out(service: DemoService, name: str) -> bool:
    return instance(service, name).healthy is False


def get(address: str, path: str) -> httpx.Response:
    """Ask one replica, or the service by its URL."""
    base = address if address.startswith("http") else f"http://{address}"
    return httpx.get(f"{base}{path}", timeout=_ASK_SECONDS, trust_env=False)


def post(address: str, path: str, content: dict[str, Any]) -> httpx.Response:
    base = address if address.startswith("http") else f"http://{address}"
    return httpx.post(f"{base}{path}", json=content, timeout=_ASK_SECONDS, trust_env=False)


@dataclass(frozen=True)
class Asked:
    """One request of a user.

    :param begun: by the monotonic clock
    :param ok: whether it was answered with status 200
    """

    begun: float
    ok: bool


class Users:
    """Ask the service over and over, each time on a new connection.

    :param url: of the service
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._ended = threading.Event()
        self.asked: list[Asked] = []

    def __enter__(self) -> Users:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        self._thread.join(30)

    def since(self, moment: float) -> list[Asked]:
        """Return the requests that were begun after a moment."""
        return [one for one in self.asked if one.begun > moment]

    def are_served(self, moment: float, count: int = 5) -> bool:
        """Say whether the last requests since a moment were all answered."""
        last = self.since(moment)[-count:]
        return len(last) == count and all(one.ok for one in last)

    def _run(self) -> None:
        while not self._ended.wait(_EVERY_SECONDS):
            begun = time.monotonic()
            try:
                ok = post(self._url, "/v1/infer", QUESTION).status_code == 200
            except httpx.HTTPError:
                ok = False
            self.asked.append(Asked(begun, ok))
