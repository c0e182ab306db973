"""Control of a service whose parts are processes, by its supervisor: HTTP over a unix socket."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from fastvlm_ops.core.services.control import Disturbance, ServiceControlError
from fastvlm_ops.core.services.instances import ServiceView
from fastvlm_ops.core.services.unix_sockets import short_path

_SCHEME = "unix:"
_CONNECT_SECONDS = 5.0
_VIEW_SECONDS = 15.0
_CHANGE_SECONDS = 60.0
_DATABASE_SECONDS = 300.0  # a base backup of a whole cluster may be part of it
_MAX_ANSWER_BYTES = 1 << 20
_MAX_MESSAGE = 500
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")

_Method = Literal["GET", "POST", "DELETE"]


class ProcessControl:
    """Talks to a supervisor. Each call is a connection of its own, so that it works after a restart too.

    :param address: ``unix:`` and the absolute path of its socket
    :raises ServiceControlError: the address is not of this kind
    """

    def __init__(self, address: str) -> None:
        path = Path(address.removeprefix(_SCHEME))
        if not address.startswith(_SCHEME) or not path.is_absolute() or "\0" in address:
            raise ServiceControlError(
                f"{address!r} is no address of a supervisor; expected unix:/path/of/control.sock"
            )
        self._address = address
        self._socket = path

    @property
    def address(self) -> str:
        """Where it is reached: ``unix:`` and a path."""
        return self._address

    def view(self) -> ServiceView:
        """Return the service as it is now.

        :raises ServiceControlError: it does not answer, or with something else
        """
        answer = self._ask("GET", "/view", _VIEW_SECONDS)
        try:
            return ServiceView.model_validate_json(answer)
        except ValidationError as error:
            raise ServiceControlError(
                f"the supervisor at {self._address} does not describe a service:"
                f" {error.error_count()} fields are wrong"
            ) from None

    def start(self, instance: str) -> None:
        """Start an instance, unless it runs.

        :param instance: its name
        :raises ServiceControlError: the supervisor does not answer, or refuses
        """
        self._tell_instance(instance, "start", _CHANGE_SECONDS)

    def stop(self, instance: str) -> None:
        """Stop an instance, so that it is not started again by itself; one that hangs is killed.

        :param instance: its name
        :raises ServiceControlError: the supervisor does not answer, or refuses
        """
        self._tell_instance(instance, "stop", _CHANGE_SECONDS)

    def restart(self, instance: str) -> None:
        """Stop an instance and start it.

        :param instance: its name
        :raises ServiceControlError: the supervisor does not answer, or refuses
        """
        self._tell_instance(instance, "restart", _CHANGE_SECONDS)

    def promote(self, instance: str) -> None:
        """Make a standby database the primary, once the old primary is known to be gone.

        :param instance: its name
        :raises ServiceControlError: the supervisor does not answer, or refuses
        """
        self._tell_instance(instance, "promote", _DATABASE_SECONDS)

    def rejoin(self, instance: str) -> None:
        """Make an old primary a standby of the present one.

        :param instance: its name
        :raises ServiceControlError: the supervisor does not answer, or refuses
        """
        self._tell_instance(instance, "rejoin", _DATABASE_SECONDS)

    def disturb(self, link: str, disturbance: Disturbance, *, latency_ms: int = 0) -> None:
        """Disturb a TCP link, instead of how it was disturbed before.

        :param link: its name
        :param disturbance: what happens on it
        :param latency_ms: that is added to what is sent, in each direction
        :raises ServiceControlError: the supervisor does not answer, or refuses
        """
        content = {"disturbance": disturbance, "latency_ms": latency_ms}
        self._ask("POST", f"/links/{_checked(link)}", _CHANGE_SECONDS, content)

    def soothe(self, link: str) -> None:
        """Pass on everything on a TCP link again.

        :param link: its name
        :raises ServiceControlError: the supervisor does not answer, or refuses
        """
        self._ask("DELETE", f"/links/{_checked(link)}", _CHANGE_SECONDS)

    def behave(
        self, instance: str, *, slow_ms: int = 0, failing_share: float = 0.0, ready: bool = True
    ) -> None:
        """Tell a replica how to behave from now on, instead of how it was told to before; by default, well.

        :param instance: its name
        :param slow_ms: how long it waits before it answers users
        :param failing_share: of users' requests that it answers with status 500, from 0 to 1
        :param ready: false: it says that it is not ready
        :raises ServiceControlError: the supervisor does not answer, or refuses
        """
        content = {"slow_ms": slow_ms, "failing_share": failing_share, "ready": ready}
        self._ask("POST", f"/instances/{_checked(instance)}/behaviour", _CHANGE_SECONDS, content)

    def _tell_instance(self, instance: str, what: str, timeout_seconds: float) -> None:
        self._ask("POST", f"/instances/{_checked(instance)}/{what}", timeout_seconds)

    def _ask(
        self, method: _Method, path: str, timeout_seconds: float, content: dict[str, Any] | None = None
    ) -> bytes:
        import httpx

        try:
            with short_path(self._socket) as socket_path:
                status, answer = _send(socket_path, method, path, timeout_seconds, content)
        except httpx.TimeoutException:
            raise self._error(f"did not answer within {timeout_seconds:.0f} s", retryable=True) from None
        except (httpx.HTTPError, OSError) as error:
            # A supervisor that restarts is back in a moment, and its socket too.
            raise self._error(f"cannot be asked: {error}", retryable=True) from error
        if status >= 400:
            raise self._error(f"refused {method} {path}: {_message(status, answer)}", retryable=status >= 500)
        return answer

    def _error(self, what: str, *, retryable: bool) -> ServiceControlError:
        return ServiceControlError(f"the supervisor at {self._address} {what}", retryable=retryable)


def _send(
    socket_path: str, method: _Method, path: str, timeout_seconds: float, content: dict[str, Any] | None
) -> tuple[int, bytes]:
    """Return status and body; bounded in time and size, whatever answers."""
    import httpx

    deadline = time.monotonic() + timeout_seconds
    timeout = httpx.Timeout(timeout_seconds, connect=min(_CONNECT_SECONDS, timeout_seconds))
    transport = httpx.HTTPTransport(uds=socket_path)
    with (
        httpx.Client(transport=transport, timeout=timeout, trust_env=False) as client,
        client.stream(method, f"http://supervisor{path}", json=content) as response,
    ):
        answer = b""
        for piece in response.iter_raw():
            answer += piece
            if len(answer) > _MAX_ANSWER_BYTES:
                raise httpx.DecodingError(f"the answer is longer than {_MAX_ANSWER_BYTES} bytes")
            if time.monotonic() > deadline:
                raise httpx.ReadTimeout("the answer takes too long")
        return response.status_code, answer


def _message(status: int, answer: bytes) -> str:
    try:
        said = json.loads(answer)
        return str(said["error"])[:_MAX_MESSAGE]
    except (ValueError, KeyError, TypeError):
        return f"status {status}"


def _checked(name: str) -> str:
    """Return a name that cannot lead elsewhere in the path of a URL."""
    if not _NAME.fullmatch(name):
        raise ServiceControlError(f"{name!r} is no name of an instance or a link")
    return name
