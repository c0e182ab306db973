"""Signatures of requests to S3, version 4.

Source: AWS, "Authenticating Requests: Using the Authorization Header (AWS Signature Version 4)". botocore
has a signer too, but importing it takes as long as a small backup's requests; the tests compare both.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import quote

#: What stands for the hash of a body: checksums of what is stored travel in a header, which is signed.
UNSIGNED = "UNSIGNED-PAYLOAD"
_ALGORITHM = "AWS4-HMAC-SHA256"


@dataclass(frozen=True)
class AccessKey:
    """Who asks.

    :param session_token: of temporary credentials; None for others
    """

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)


class Signer:
    """Signs requests of one user to the S3 of one region, from any thread.

    :param region: as in ``eu-central-1``
    """

    def __init__(self, key: AccessKey, region: str) -> None:
        self._key = key
        self._region = region
        self._of_day: tuple[str, bytes] = ("", b"")

    def signed(
        self, method: str, path: str, query: str, headers: Mapping[str, str], moment: datetime
    ) -> dict[str, str]:
        """Return the headers of a request with its signature, all of which is signed.

        :param path: quoted, as it is sent
        :param query: likewise, its parameters in order
        :param headers: names in lower case, ``host`` among them
        :param moment: aware, in UTC
        """
        stamp = moment.strftime("%Y%m%dT%H%M%SZ")
        found = {**headers, "x-amz-content-sha256": UNSIGNED, "x-amz-date": stamp}
        if self._key.session_token:
            found["x-amz-security-token"] = self._key.session_token
        names = sorted(found)
        listed = ";".join(names)
        lines = "".join(f"{name}:{' '.join(found[name].split())}\n" for name in names)
        request = f"{method}\n{path}\n{query}\n{lines}\n{listed}\n{UNSIGNED}"
        scope = f"{stamp[:8]}/{self._region}/s3/aws4_request"
        to_sign = f"{_ALGORITHM}\n{stamp}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
        signature = hmac.digest(self._signing_key(stamp[:8]), to_sign.encode(), "sha256").hex()
        credential = f"{self._key.access_key_id}/{scope}"
        found["authorization"] = (
            f"{_ALGORITHM} Credential={credential}, SignedHeaders={listed}, Signature={signature}"
        )
        return found

    def _signing_key(self, day: str) -> bytes:
        known, key = self._of_day
        if known != day:
            key = f"AWS4{self._key.secret_access_key}".encode()
            for part in (day, self._region, "s3", "aws4_request"):
                key = hmac.digest(key, part.encode(), "sha256")
            self._of_day = day, key
        return key


def quoted_path(path: str) -> str:
    """Return the path of an object as it is sent and signed."""
    return quote(path, safe="/~")


def quoted_query(parameters: Mapping[str, str]) -> str:
    """Return parameters as they are sent and signed."""
    pairs = [(quote(name, safe="-_.~"), quote(value, safe="-_.~")) for name, value in parameters.items()]
    return "&".join(f"{name}={value}" for name, value in sorted(pairs))
