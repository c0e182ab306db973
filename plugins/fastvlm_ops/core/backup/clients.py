"""S3 clients as the engine wants them: bounded, without checksums of their own, quick to make."""

from __future__ import annotations

import functools
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

import botocore.session
from botocore.config import Config
from botocore.loaders import Loader
from botocore.utils import parse_timestamp

from fastvlm_ops.core.garbage import many_objects

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


class _S3Only(Loader):
    """botocore's descriptions of services, without looking first through the folders of some 400 others."""

    def list_available_services(self, type_name: str) -> list[str]:
        return ["s3"]


@functools.cache
def _loader() -> _S3Only:
    """One for all clients of this process: it keeps what it has read, which takes most of making a client."""
    return _S3Only()


def _timestamp(value: Any) -> datetime:
    """As botocore reads times, but for those of listings by the standard library, a hundred times as fast."""
    try:
        return datetime.fromisoformat(value)
    except (TypeError, ValueError):
        moment: datetime = parse_timestamp(value)
        return moment


def _session() -> botocore.session.Session:
    """What boto3's own session rests on: importing the rest of boto3 takes as long as a listing."""
    session = botocore.session.get_session()
    session.register_component("data_loader", _loader())
    session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=_timestamp)
    return session


def create_client(
    *,
    endpoint_url: str | None = None,
    region_name: str | None = None,
    access_key_id: str | None = None,
    secret_access_key: str | None = None,
    session_token: str | None = None,
    connect_timeout_seconds: float = 10,
    read_timeout_seconds: float = 30,
    attempts: int = 4,
) -> S3Client:
    """A boto3 S3 client set up for the engine: bounded time-outs and retries.

    A request that is never answered fails after about ``attempts`` times a time-out, two minutes by
    default, and with it the run, which can be resumed.

    Checksums are ours (SHA-256 of each object), so boto3's default CRC is switched off.
    An own endpoint is addressed by path, as few of them resolve buckets as host names.
    """
    config = Config(
        connect_timeout=connect_timeout_seconds,
        read_timeout=read_timeout_seconds,
        retries={"mode": "standard", "total_max_attempts": attempts},
        max_pool_connections=16,
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"addressing_style": "path" if endpoint_url else "auto", "payload_signing_enabled": False},
    )
    with many_objects():
        client: Any = _session().create_client(
            "s3",
            endpoint_url=endpoint_url,
            region_name=region_name or "us-east-1",
            aws_access_key_id=access_key_id,
            aws_secret_access_key=secret_access_key,
            aws_session_token=session_token,
            config=config,
        )
    return cast("S3Client", client)
