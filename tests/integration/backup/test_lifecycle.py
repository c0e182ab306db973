"""Lifecycle rules of a real bucket, as far as the server of the tests has them: it moves nothing to classes.

What it refuses, a proxy before it keeps instead, as S3 would: the rules as they were sent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fastvlm_ops.core.backup import S3Storage, create_client
from fastvlm_ops.core.backup.errors import AccessDeniedError, StorageError
from fastvlm_ops.core.backup.lifecycle import apply_classes, compare, dangers, read_rules, rule_id
from fastvlm_ops.local.seaweedfs import SeaweedFS
from tests.fault_proxy import Answer, Exchange, FaultProxy, Request, access_denied
from tests.unit.core.backup.test_lifecycle_rules import FOREIGN, classes

pytestmark = pytest.mark.integration


def put_rules(storage: S3Storage, *rules: Any) -> None:
    storage.client.put_bucket_lifecycle_configuration(
        Bucket=storage.bucket, LifecycleConfiguration={"Rules": list(rules)}
    )


def test_rules_of_a_server_that_moves_nothing(storage: S3Storage) -> None:
    assert read_rules(storage).rules == ()
    assert not apply_classes(storage, None)
    put_rules(storage, FOREIGN)
    assert dangers(storage, read_rules(storage).rules) == []
    put_rules(storage, FOREIGN, {**FOREIGN, "ID": "all", "Filter": {"Prefix": "some/"}})
    (danger,) = dangers(storage, read_rules(storage).rules)
    assert danger.startswith("rule all removes objects of the backups after 9 days")
    with pytest.raises(StorageError, match="does not move objects to other classes; remove"):
        apply_classes(storage, classes((60, "STANDARD_IA")))


class Kept:
    """The rules that a bucket was given."""

    def __init__(self) -> None:
        self.rules = b""
        self.denied = False

    def __call__(self, request: Request) -> Callable[[Exchange], None] | None:
        if request.operation not in ("PutBucket", "GetBucket", "DeleteBucket"):
            return None
        return access_denied if self.denied and request.operation == "PutBucket" else self.answer

    def answer(self, exchange: Exchange) -> None:
        operation = exchange.request.operation
        if operation == "GetBucket":
            if not self.rules:
                exchange.error(404, "NoSuchLifecycleConfiguration")
                return
            headers = (("Content-Type", "application/xml"),)
            exchange.reply(Answer(200, headers, self.rules, len(self.rules)))
            return
        self.rules = exchange.body if operation == "PutBucket" else b""
        exchange.reply(Answer(200 if operation == "PutBucket" else 204, (), b"", 0))


def test_ours_is_added_and_taken_away_and_theirs_stays(seaweedfs: SeaweedFS) -> None:
    kept = Kept()
    with FaultProxy(seaweedfs.endpoint_url, "some/prefix/") as proxy, proxy.faults(kept):
        client = create_client(
            endpoint_url=proxy.endpoint_url,
            access_key_id=seaweedfs.access_key_id,
            secret_access_key=seaweedfs.secret_access_key,
        )
        storage = S3Storage(client, "bucket", "some/prefix")
        put_rules(storage, FOREIGN)
        wanted = classes((60, "STANDARD_IA"))
        kept.denied = True
        with pytest.raises(AccessDeniedError, match="s3:PutLifecycleConfiguration"):
            apply_classes(storage, wanted)
        kept.denied = False
        assert apply_classes(storage, wanted)
        rules = read_rules(storage).rules
        assert {rule["ID"] for rule in rules} == {"logs", rule_id(storage)}
        assert compare(storage, rules, wanted) == "equal"
        assert compare(storage, rules, classes((90, "STANDARD_IA"))) == "differs"
        assert compare(storage, rules, None) == "left over"
        assert not apply_classes(storage, wanted), "the second time changes nothing"
        assert apply_classes(storage, None)
        assert [rule["ID"] for rule in read_rules(storage).rules] == ["logs"]
        kept.rules = b""
        assert apply_classes(storage, wanted)
        assert apply_classes(storage, None)
        assert kept.rules == b"", "an empty list of rules would be refused"
