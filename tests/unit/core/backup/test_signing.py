"""Signatures are those that botocore makes for the same request."""

from __future__ import annotations

from datetime import UTC, datetime

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from fastvlm_ops.core.backup.signing import AccessKey, Signer, quoted_path, quoted_query

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=12)
VALUE = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=12)
HEADERS = st.sampled_from(["range", "if-none-match", "x-amz-checksum-sha256", "content-type", "x-amz-date-x"])


@given(
    method=st.sampled_from(["GET", "PUT", "HEAD", "DELETE"]),
    key=TEXT,
    query=st.dictionaries(TEXT, TEXT, max_size=3),
    headers=st.dictionaries(HEADERS, VALUE, max_size=3),
    token=st.none() | VALUE,
    moment=st.datetimes(datetime(2000, 1, 1), datetime(2090, 1, 1)),
)
def test_signatures_are_botocores(
    method: str, key: str, query: dict[str, str], headers: dict[str, str], token: str | None, moment: datetime
) -> None:
    path, text = quoted_path(f"/bucket/{key}"), quoted_query(query)
    host = "s3.example.com:9000"
    signer = Signer(AccessKey("an id", "a secret", token), "eu-central-1")
    ours = signer.signed(method, path, text, {"host": host, **headers}, moment.replace(tzinfo=UTC))

    request = AWSRequest(method, f"https://{host}{path}{'?' if text else ''}{text}", headers={**headers})
    request.context["client_config"] = Config(s3={"payload_signing_enabled": False})
    request.context["timestamp"] = moment.strftime("%Y%m%dT%H%M%SZ")
    theirs = S3SigV4Auth(Credentials("an id", "a secret", token), "s3", "eu-central-1")
    theirs._modify_request_before_signing(request)
    to_sign = theirs.string_to_sign(request, theirs.canonical_request(request))
    theirs._inject_signature_to_request(request, theirs.signature(to_sign, request))
    assert ours["authorization"] == request.headers["Authorization"]
    assert ours.get("x-amz-security-token") == token


def test_neither_key_nor_token_is_shown() -> None:
    key = AccessKey("an id", "a secret", "a token")
    assert repr(key) == "AccessKey(access_key_id='an id')"
