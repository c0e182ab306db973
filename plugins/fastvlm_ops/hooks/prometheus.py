"""Hook to Prometheus, or to what speaks its API."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException
from airflow.sdk.log import mask_secret

from fastvlm_ops.core.prometheus.errors import PrometheusError
from fastvlm_ops.hooks.connections import ConnectionSettingError, unknown_field

if TYPE_CHECKING:
    import pandas as pd
    from airflow.sdk import Connection

    from fastvlm_ops.core.prometheus.client import PrometheusClient
    from fastvlm_ops.core.prometheus.series import SeriesList
    from fastvlm_ops.core.prometheus.session import ServerSettings

_EXTRAS = (
    "verify",
    "ca_bundle",
    "client_cert",
    "client_key",
    "headers",
    "method",
    "timeout_seconds",
    "retries",
)
_TEST_SECONDS = 10.0


class PrometheusConnectionError(ConnectionSettingError, PrometheusError):
    """The connection is missing, lacks a field, or has one that cannot be used."""


class PrometheusHook(BaseHook):
    """Asks the Prometheus behind a connection of type ``fastvlm_prometheus``.

    All it raises is a :class:`~fastvlm_ops.core.prometheus.errors.PrometheusError`, whose ``retryable`` says
    whether another try can help. Not for several threads at once.

    :param prometheus_conn_id: the connection; host is the URL, login and password are for basic
        authentication, a password alone is a bearer token (neither: no authentication), extra has ``verify``,
        ``ca_bundle``, ``client_cert``, ``client_key``, ``headers``, ``method``, ``timeout_seconds`` and
        ``retries``
    """

    conn_name_attr = "prometheus_conn_id"
    default_conn_name = "fastvlm_prometheus"
    conn_type = "fastvlm_prometheus"
    hook_name = "FastVLM metrics (Prometheus)"

    def __init__(self, prometheus_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.prometheus_conn_id = prometheus_conn_id

    @cached_property
    def settings(self) -> ServerSettings:
        """The connection's fields, checked, with its secrets masked in the logs from here on.

        :raises PrometheusConnectionError: a field is missing, unknown or cannot be used
        """
        try:
            connection = self.get_connection(self.prometheus_conn_id)
        except AirflowNotFoundException:
            message = f"is not defined; create it with the type {self.conn_type}"
            raise PrometheusConnectionError(self.prometheus_conn_id, message) from None
        settings = settings_of(connection)
        for secret in (settings.password, *settings.headers.values()):
            if secret:
                mask_secret(secret)
        return settings

    @cached_property
    def client(self) -> PrometheusClient:
        """The client, with time-outs and retries.

        :raises PrometheusConnectionError: a field is missing, unknown or cannot be used
        """
        from fastvlm_ops.core.prometheus.client import PrometheusClient

        return PrometheusClient(self.settings)

    def get_conn(self) -> PrometheusClient:
        """Return the client; Airflow's customary name for it."""
        return self.client

    def hourly(
        self,
        query: str,
        start: datetime,
        end: datetime,
        *,
        label: str = "service",
        allow_partial: bool = False,
    ) -> pd.DataFrame:
        """Evaluate a query over each hour from start to end, as in ``avg_over_time(metric[1h])``.

        The row of 12:00 covers what was measured from 12:00 to before 13:00.

        :param query: PromQL that gives one series for each value of the label
        :param start: an aware time on a full hour of UTC
        :param end: the same; the last row is of the hour before it
        :param label: whose values become the columns
        :param allow_partial: whether an answer that may lack data is taken; what the server says of it is
            logged, and in ``attrs["notes"]``
        :returns: all hours, in UTC, by the label's values; NaN where there is no data
        :raises PrometheusError: or a subclass
        """
        return self.client.hourly(query, start, end, label=label, allow_partial=allow_partial)

    def query_range(
        self,
        query: str,
        start: datetime,
        end: datetime,
        step_seconds: float,
        *,
        allow_partial: bool = False,
    ) -> SeriesList:
        """Evaluate a query at start, start + step, ... up to the end, in as many requests as that takes.

        :param query: PromQL
        :param start: an aware time, the first point
        :param end: an aware time; a point too where a step hits it
        :param step_seconds: between points, in seconds
        :param allow_partial: whether an answer that may lack data is taken; what the server says of it is
            logged, and in ``notes``
        :returns: the series, each time in them once
        :raises PrometheusError: or a subclass
        """
        return self.client.query_range(query, start, end, step_seconds, allow_partial=allow_partial)

    def instant(self, query: str, at: datetime, *, allow_partial: bool = False) -> SeriesList:
        """Evaluate a query at one time.

        :param query: PromQL
        :param at: an aware time
        :param allow_partial: as in :meth:`query_range`
        :returns: series of one sample each
        :raises PrometheusError: or a subclass
        """
        return self.client.instant(query, at, allow_partial=allow_partial)

    @staticmethod
    def label_matcher(name: str, value: str) -> str:
        """Return ``name="value"`` for a selector, whatever the value holds.

        :param name: of the label
        :param value: any text
        :raises PrometheusQueryError: the name is none of a label, or the value cannot be sent
        """
        from fastvlm_ops.core.prometheus.asking import label_matcher

        return label_matcher(name, value)

    def test_connection(self) -> tuple[bool, str]:
        """Check that the server answers a query. Asks once, and waits for ten seconds at most.

        :returns: whether it does, and one sentence that says what is or what is not
        """
        try:
            return True, self._test_connection()
        except PrometheusError as error:
            return False, str(error)

    def _test_connection(self) -> str:
        from fastvlm_ops.core.prometheus.client import PrometheusClient

        seconds = min(_TEST_SECONDS, self.settings.timeout_seconds)
        with PrometheusClient(replace(self.settings, timeout_seconds=seconds, retries=0)) as client:
            answer = client.instant("vector(1)", datetime.now(UTC))
        if [list(series.values) for series in answer] != [[1.0]]:
            raise PrometheusError(f"{self.settings.url} answers vector(1) with something else than 1")
        return f"{self.settings.url} answers queries."


def settings_of(connection: Connection) -> ServerSettings:
    """Read and check a connection.

    :param connection: of type ``fastvlm_prometheus``
    :raises PrometheusConnectionError: a field is missing, unknown or cannot be used
    """
    from fastvlm_ops.core.prometheus.session import ServerSettings

    fields = _Fields(connection)
    login, password = connection.login or None, connection.password or None
    if login and not password:
        raise fields.error("the password is missing; enter login and password, or a token as password alone")
    headers = fields.headers()
    if password and any(name.lower() == "authorization" for name in headers):
        raise fields.error(
            "headers has Authorization, which the password (token) is sent as; keep one of them"
        )
    return ServerSettings(
        url=fields.url(),
        login=login,
        password=password,
        headers=headers,
        verify=fields.verify(),
        client_cert=fields.client_cert(),
        timeout_seconds=fields.number("timeout_seconds", 60, lowest=0.1, highest=3600),
        retries=int(fields.number("retries", 3, lowest=0, highest=10, whole=True)),
        method=fields.method(),
    )


class _Fields:
    """The fields of a connection, each checked when it is read; text of a URI counts as what it says."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._extra: dict[str, Any] = connection.extra_dejson
        if unknown := unknown_field(self._extra, _EXTRAS):
            raise self.error(unknown)

    def error(self, message: str) -> PrometheusConnectionError:
        return PrometheusConnectionError(self._connection.conn_id, message)

    def url(self) -> str:
        url = (self._connection.host or "").strip()
        example = "enter the server's URL, as in https://prometheus.example.org:9090"
        if not url:
            raise self.error(f"the field host is empty; {example}")
        try:
            parts = urlsplit(url)
            good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            good = False
        if not good:
            raise self.error(f"the field host is {url!r}; {example}")
        if parts.username is not None or parts.query or parts.fragment:
            raise self.error(
                "the URL in host holds more than an address; login and password have their own fields"
            )
        if self._connection.port or self._connection.schema:
            raise self.error("the fields port and schema are not read; put them into the URL in host")
        return url.rstrip("/")

    def verify(self) -> bool | str:
        verify = self._extra.get("verify")
        if isinstance(verify, str):
            verify = {"true": True, "false": False, "": None}.get(verify.lower(), verify)
        if verify not in (None, True, False):
            raise self.error(f"the field 'verify' is {verify!r}; it must be true or false")
        bundle = self._file("ca_bundle")
        if bundle and verify is False:
            raise self.error("verify is false, so that ca_bundle would not be used; keep one of them")
        return bundle or verify is not False

    def client_cert(self) -> str | tuple[str, str] | None:
        certificate, key = self._file("client_cert"), self._file("client_key")
        if key and not certificate:
            raise self.error("the field 'client_cert' is missing; client_key alone is of no use")
        return (certificate, key) if certificate and key else certificate

    def headers(self) -> dict[str, str]:
        headers = self._extra.get("headers") or {}
        if isinstance(headers, str):
            try:
                headers = json.loads(headers)
            except ValueError:
                headers = None
        if not isinstance(headers, dict):
            raise self.error('the field \'headers\' is no object, as in {"X-Scope-OrgID": "tenant"}')
        for name, value in headers.items():
            if not isinstance(value, str) or not (name + value).isprintable():
                raise self.error(f"the header {name!r} is not text in one line")
        return headers

    def method(self) -> Any:
        method = self._extra.get("method") or "POST"
        if method not in ("POST", "GET"):
            raise self.error(f"the field 'method' is {method!r}; it must be POST or GET")
        return method

    def number(
        self, name: str, default: float, *, lowest: float, highest: float, whole: bool = False
    ) -> float:
        given = self._extra.get(name)
        if given is None or given == "":
            return default
        try:
            number = float("nan") if isinstance(given, bool) else float(given)
        except (TypeError, ValueError):
            number = float("nan")
        if not lowest <= number <= highest or (whole and number % 1):
            kind = "a whole number" if whole else "a number"
            raise self.error(
                f"the field {name!r} is {given!r}; it must be {kind} from {lowest:g} to {highest:g}"
            )
        return number

    def _file(self, name: str) -> str | None:
        path = self._extra.get(name)
        if path is None or path == "":
            return None
        if not isinstance(path, str) or not path.startswith("/") or not Path(path).is_file():
            raise self.error(f"the field {name!r} is {path!r}, which is no file with an absolute path")
        return path
