"""What is asked of a service that is drilled: an inference, whether it is ready, the canary's rows."""

from __future__ import annotations

import hashlib
import json
import ssl
from typing import TYPE_CHECKING, Any

from fastvlm_ops.core.disaster_recovery.errors import InconclusiveError
from fastvlm_ops.core.disaster_recovery.ledger import WriteOutcome

if TYPE_CHECKING:
    import httpx

INFER_PATH, READY_PATH, RECORDS_PATH = "/v1/infer", "/readyz", "/v1/records"
#: The same for every request, so that every answer is the same.
INFER_CONTENT = {"text": "a drill that proves recovery"}
#: Of an answer, what may differ from one replica or time to the next; the rest may not.
_VARYING = frozenset({"replica", "took_ms", "request_id"})
_READ_SECONDS = 10.0
_PAYLOAD_BYTES = 128


def answer_hash(response: httpx.Response) -> str | None:
    """Return the SHA-256 of what an inference was answered; None where that is no JSON object.

    :param response: of the service
    """
    try:
        content = json.loads(response.content)
    except ValueError:
        return None
    if not isinstance(content, dict) or not (kept := {k: v for k, v in content.items() if k not in _VARYING}):
        return None
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def write_outcome(response: httpx.Response) -> WriteOutcome:
    """Return what became of a write, by its answer: 201 once it is committed; with ``"outcome": "unknown"``,
    the service itself does not know.

    :param response: of the service
    """
    if response.status_code == 201:
        return "acknowledged"
    try:
        unknown = json.loads(response.content).get("outcome") == "unknown"
    except (ValueError, AttributeError):
        unknown = response.status_code >= 500  # whoever says so is not the service that wrote
    return "in_flight" if unknown else "failed"


def payload_of(row_id: str) -> str:
    """Return the payload of a row of the canary: the same for the same id, and another for each.

    :param row_id: of the row
    """
    return hashlib.shake_128(row_id.encode()).hexdigest(_PAYLOAD_BYTES // 2)


def payload_hash(payload: str) -> str:
    """Return the SHA-256 of a payload.

    :param payload: of a row
    """
    return hashlib.sha256(payload.encode()).hexdigest()


def ask(url: str, path: str, timeout_seconds: float, **parameters: str) -> httpx.Response:
    """Ask a service for something.

    :param url: where its users reach it
    :param path: as in ``/readyz``
    :param timeout_seconds: to connect, and between two pieces of the answer
    :param parameters: of the query
    :raises httpx.HTTPError: there was no answer
    """
    import httpx

    with httpx.Client(
        base_url=url, timeout=timeout_seconds, verify=authorities(url), trust_env=False
    ) as client:
        return client.get(path, params=parameters or None)


def authorities(url: str) -> ssl.SSLContext | bool:
    """Return the certificate authorities that are trusted for an address: the usual ones; none where there is
    no certificate to check, since to read them takes longer than to ask.

    :param url: of a service
    """
    return True if url.startswith("https:") else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def read_rows(url: str, prefix: str) -> dict[str, str]:
    """Return the canary's rows that a service has: id of each → SHA-256 of its payload.

    :param url: where its users reach it
    :param prefix: of the rows' ids
    :raises InconclusiveError: it does not give them
    """
    import httpx

    try:
        response = ask(url, RECORDS_PATH, _READ_SECONDS, prefix=prefix)
    except httpx.HTTPError as error:
        raise InconclusiveError(
            f"the canary's rows cannot be read: {type(error).__name__}: {error}", retryable=True
        ) from error
    if response.status_code != httpx.codes.OK:
        raise InconclusiveError(
            f"the canary's rows cannot be read: the service answered {response.status_code}", retryable=True
        )
    try:
        return {str(row["id"]): payload_hash(row["payload"]) for row in _rows(json.loads(response.content))}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InconclusiveError(f"the canary's rows are not what was expected: {error}") from error


def _rows(content: Any) -> list[dict[str, Any]]:
    rows = content["records"]
    if not isinstance(rows, list):
        raise TypeError("records is no list")
    return rows
