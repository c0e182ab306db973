"""The HTTP below prometheus-api-client: one session that bounds, retries and checks every request."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

import requests
import urllib3
from requests.auth import AuthBase, HTTPBasicAuth

from fastvlm_ops.core.garbage import many_objects
from fastvlm_ops.core.prometheus.errors import (
    PrometheusAnswerError,
    PrometheusError,
    PrometheusQueryError,
    PrometheusRefusedError,
    PrometheusUnavailableError,
)
from fastvlm_ops.core.prometheus.matrix import read_matrix

_RETRIED = {408, 425, 429, 500, 502, 503, 504}
_CONNECT_SECONDS = 10.0
_FIRST_WAIT_SECONDS = 0.25
_LONGEST_WAIT_SECONDS = 8.0
_READ_BYTES = 1 << 18
_SHOWN = 300
_THIS_MACHINE = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class ServerSettings:
    """Where Prometheus is, and how it is asked.

    :param url: as in ``https://prometheus.example.org:9090``, with a path where the API is below one
    :param login: for basic authentication; None for a token, or for neither
    :param password: for ``login``, or the bearer token; None for neither
    :param headers: sent with each request
    :param verify: whether the server's certificate is checked, or the file of the authorities it is checked
        by
    :param client_cert: file of the client's certificate, or of it and of its key
    :param timeout_seconds: for one attempt, from the connection to the last byte
    :param retries: further attempts after one that failed in a way that may pass
    :param method: GET for servers and proxies that refuse POST
    """

    url: str
    login: str | None = None
    password: str | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    verify: bool | str = True
    client_cert: str | tuple[str, str] | None = None
    timeout_seconds: float = 60
    retries: int = 3
    method: Literal["POST", "GET"] = "POST"


class _Bearer(AuthBase):
    """Sends a token; with none, keeps requests from sending what a netrc file says."""

    def __init__(self, token: str | None) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._token:
            request.headers["Authorization"] = f"Bearer {self._token}"
        return request


class _Answer(requests.Response):
    """An answer that was read and checked, and is not parsed again by the client library."""

    def __init__(self, document: dict[str, Any]) -> None:
        super().__init__()
        self.status_code = 200
        self._document = document

    def json(self, **_options: Any) -> Any:
        return self._document


class CheckedSession(requests.Session):
    """A session whose requests end in time, are tried again, and return nothing but Prometheus's answers.

    Not for several threads at once.

    :param settings: of the server
    """

    def __init__(self, settings: ServerSettings) -> None:
        super().__init__()
        self._settings = settings
        self.warnings: list[str] = []
        self.infos: list[str] = []
        self.verify = settings.verify
        self.cert = settings.client_cert
        if urlsplit(settings.url).hostname in _THIS_MACHINE:
            # Compression takes the server longer than the query, to save a network that is not there.
            self.headers["Accept-Encoding"] = "identity"
        self.headers.update(settings.headers)
        self.auth = (
            HTTPBasicAuth(settings.login.encode(), (settings.password or "").encode())
            if settings.login
            else _Bearer(settings.password)
        )

    def request(self, method: str, url: str, **options: Any) -> requests.Response:  # type: ignore[override]
        """Send a request, again where that may help.

        :param method: any verb; queries may be sent again, for they change nothing
        :param url: of the request
        :param options: of requests; time-outs are this session's own
        :raises PrometheusError: or a subclass, always
        """
        fields = options.pop("params", None)
        # In the body a query may be as long as it needs to be; in the address, servers cut it.
        options["data" if method.upper() == "POST" else "params"] = fields
        options |= {"auth": self.auth, "allow_redirects": False, "stream": True}
        attempt = 0
        while True:
            try:
                return _Answer(self._attempt(method, url, options))
            except PrometheusUnavailableError as error:
                attempt += 1
                if attempt > self._settings.retries:
                    message = f"{error} (attempts: {attempt})" if attempt > 1 else str(error)
                    raise PrometheusUnavailableError(message, error.retry_after_seconds) from error
                time.sleep(_wait_seconds(attempt, error.retry_after_seconds))

    def _attempt(self, method: str, url: str, options: dict[str, Any]) -> dict[str, Any]:
        limit = self._settings.timeout_seconds
        deadline = time.monotonic() + limit
        options["timeout"] = (min(limit, _CONNECT_SECONDS), limit)
        too_late = PrometheusUnavailableError(f"{url} did not answer within {limit:g} s")
        try:
            with super().request(method, url, **options) as response:
                body = _read(response, deadline)
        except (requests.Timeout, urllib3.exceptions.TimeoutError) as error:
            raise too_late from error
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise _transport_error(url, error) from error
        if body is None:
            raise too_late
        document = _document(response, body, self._settings.method)
        self.warnings += map(str, document.get("warnings") or ())
        self.infos += map(str, document.get("infos") or ())
        return document


def _read(response: requests.Response, deadline: float) -> bytes | None:
    """Return the body; None where it does not end in time, though each of its bytes may."""
    parts = []
    while part := response.raw.read1(_READ_BYTES, decode_content=True):
        parts.append(part)
        if time.monotonic() > deadline:
            return None
    return b"".join(parts)


def _wait_seconds(attempt: int, asked: float | None) -> float:
    wait: float = _FIRST_WAIT_SECONDS * 2 ** (attempt - 1)
    wait *= random.uniform(1, 1.25)  # noqa: S311 - so that clients do not come back all at once
    return min(max(wait, asked or 0), _LONGEST_WAIT_SECONDS)


def _transport_error(url: str, error: Exception) -> PrometheusError:
    cause = error.args[0] if error.args else error
    reason = str(getattr(cause, "reason", None) or cause)  # urllib3's own, less the whole address
    if "CERTIFICATE_VERIFY_FAILED" in reason:
        return PrometheusRefusedError(
            f"the certificate of {url} is not trusted: {_shown(reason)}; name its authority in ca_bundle"
        )
    if isinstance(
        error, requests.ConnectionError | requests.exceptions.ChunkedEncodingError
    ) or not isinstance(error, requests.RequestException):
        return PrometheusUnavailableError(f"{url} did not answer, or not to the end: {_shown(reason)}")
    return PrometheusError(f"{url} cannot be asked: {_shown(reason)}")


def _document(response: requests.Response, body: bytes, method: str) -> dict[str, Any]:
    """Return the document of an answer.

    :raises PrometheusError: it is none of Prometheus's, or says that the query failed
    """
    url, status = response.url.partition("?")[0], response.status_code
    document = read_matrix(body)
    if document is None:
        try:
            with many_objects():
                document = json.loads(body)
        except ValueError:
            document = None
    if not isinstance(document, dict):
        document = None
    said = document.get("error") if document else None
    what = f"{url} answered {status}: {_shown(str(said) if said else body.decode(errors='replace'))}"
    if status in _RETRIED:
        raise PrometheusUnavailableError(what, _retry_after(response))
    if 300 <= status < 400:
        raise PrometheusAnswerError(
            f"{url} redirects to {response.headers.get('Location')}; is the URL right?"
        )
    if status in (401, 403, 407):
        raise PrometheusRefusedError(f"{what}; check login, password (token) and headers")
    if status in (400, 413, 414, 422):
        raise PrometheusQueryError(what)
    if status == 405:
        raise PrometheusAnswerError(f"{what}; it does not take {method}: set method to GET")
    if status != 200 or document is None:
        kind = response.headers.get("Content-Type", "no content type")
        raise PrometheusAnswerError(f"{what} ({kind}), which is no answer of Prometheus; is the URL right?")
    if document.get("status") != "success":
        raise PrometheusQueryError(f"{url} says status {document.get('status')!r}: {_shown(str(said))}")
    if "data" not in document:
        raise PrometheusAnswerError(f"{url} answered without data, which is no answer of Prometheus")
    return document


def _retry_after(response: requests.Response) -> float | None:
    text = response.headers.get("Retry-After", "")
    return float(text) if text.isdecimal() else None


def _shown(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
