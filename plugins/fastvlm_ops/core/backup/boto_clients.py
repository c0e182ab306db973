"""Clients of boto3, for what is not asked on the shorter way."""

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


def make_boto_client(
    *, endpoint_url: str | None, connect_timeout: float, read_timeout: float, attempts: int, **who: Any
) -> S3Client:
    """Make a client with bounded time-outs and retries.

    :param who: region and keys, as boto3 names them; a key that is None is looked for where boto3 does
    """
    config = Config(
        connect_timeout=connect_timeout,
        read_timeout=read_timeout,
        retries={"mode": "standard", "total_max_attempts": attempts},
        max_pool_connections=16,
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"addressing_style": "path" if endpoint_url else "auto", "payload_signing_enabled": False},
    )
    with many_objects():
        client: Any = _session().create_client("s3", endpoint_url=endpoint_url, config=config, **who)
    return cast("S3Client", client)
