"""The hook and HTTPS: authorities, client certificates, and a server that is not who it should be."""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from fastvlm_ops.core.prometheus.errors import PrometheusError, PrometheusRefusedError
from tests.integration.prometheus.conftest import MakeHook
from tests.prometheus_stand_in import StandIn

pytestmark = pytest.mark.integration


class Authority:
    """A certificate authority of the tests' own.

    :param folder: for its files
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority of the tests")])
        self.bundle = self._write("authority", self._sign(self._name, self._key, authority=True))

    def issue(self, name: str) -> tuple[Path, Path]:
        """Return files of a certificate for 127.0.0.1, and of its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self._write(name, self._sign(subject, key, authority=False))
        file = self.folder / f"{name}.key"
        file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return certificate, file

    def _sign(self, name: x509.Name, key: ec.EllipticCurvePrivateKey, *, authority: bool) -> x509.Certificate:
        now = datetime.now(UTC)
        usage = x509.KeyUsage(not authority, False, False, False, False, authority, authority, False, False)
        return (
            x509.CertificateBuilder(self._name, name, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )

    def _write(self, name: str, certificate: x509.Certificate) -> Path:
        file = self.folder / f"{name}.pem"
        file.write_bytes(certificate.public_bytes(Encoding.PEM))
        return file


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Signs the server's and the client's certificate."""
    return Authority(tmp_path_factory.mktemp("tls"))


@contextmanager
def https(authority: Authority, *, asks_client: bool = False) -> Iterator[StandIn]:
    """A server with a certificate of the authority's."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("server"))
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
