"""The hook and HTTPS: authorities, client certificates, and a server that is not who it should be."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest

from fastvlm_ops.core.prometheus.errors import PrometheusError, PrometheusRefusedError
from tests.certificates import Authority
from tests.integration.prometheus.conftest import MakeHook
from tests.prometheus_stand_in import StandIn

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Signs the server's and the client's certificate."""
    return Authority(tmp_path_factory.mktemp("tls"))


@contextmanager
def https(authority: Authority, *, asks_client: bool = False) -> Iterator[StandIn]:
    """A server with a certificate of the authority's."""
    context = authority.server_context()
    if asks_client:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(authority.bundle)
    with StandIn(tls=context) as server:
        yield server


QUICK = {"timeout_seconds": 5, "retries": 0}
NOW = datetime(2026, 6, 1, tzinfo=UTC)


def test_an_unknown_authority_is_refused_and_not_tried_again(
    authority: Authority, make_hook: MakeHook
) -> None:
    with https(authority) as server:
        with pytest.raises(PrometheusRefusedError, match=r"is not trusted: .*ca_bundle") as caught:
            make_hook(server.url, extra={**QUICK, "retries": 5}).instant("m", NOW)
        assert caught.value.retryable is False
        assert server.asked == []


def test_an_authority_that_is_named_is_trusted(
    authority: Authority, make_hook: MakeHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", ssl.get_default_verify_paths().cafile or "")
    with https(authority) as server:
        extra = {**QUICK, "ca_bundle": str(authority.bundle)}
        assert len(make_hook(server.url, extra=extra).instant("m", NOW)) == 1


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_the_check_can_be_turned_off(authority: Authority, make_hook: MakeHook) -> None:
    with https(authority) as server:
        assert len(make_hook(server.url, extra={**QUICK, "verify": False}).instant("m", NOW)) == 1


@pytest.mark.parametrize("files", ["two", "one"])
def test_a_client_certificate(authority: Authority, make_hook: MakeHook, files: str) -> None:
    certificate, key = authority.issue("client")
    extra = {**QUICK, "ca_bundle": str(authority.bundle), "client_cert": str(certificate)}
    if files == "two":
        extra["client_key"] = str(key)
    else:
        certificate.write_bytes(certificate.read_bytes() + key.read_bytes())
    with https(authority, asks_client=True) as server:
        assert len(make_hook(server.url, extra=extra).instant("m", NOW)) == 1


def test_without_its_client_certificate(authority: Authority, make_hook: MakeHook) -> None:
    with https(authority, asks_client=True) as server:
        with pytest.raises(PrometheusError):
            make_hook(server.url, extra={**QUICK, "ca_bundle": str(authority.bundle)}).instant("m", NOW)
        assert server.asked == []
