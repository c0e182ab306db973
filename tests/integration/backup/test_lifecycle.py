"""Our lifecycle rule in a real bucket: merged with those of others, idempotent; dangerous ones are found."""

from __future__ import annotations

from typing import Any

import pytest

from fastvlm_ops.core.backup import S3Storage
from fastvlm_ops.core.backup.lifecycle import (
    apply_classes,
    compare,
    dangers,
    read_rules,
    rule_id,
    wanted_rule,
)
from fastvlm_ops.core.config import StorageClasses

pytestmark = pytest.mark.integration

FOREIGN = {
    "ID": "logs",
    "Filter": {"Prefix": "logs/"},
    "Status": "Enabled",
    "Expiration": {"Days": 9},
}


def classes(*steps: tuple[int, str]) -> StorageClasses:
    return StorageClasses.model_validate(
        {"packs": [{"after_days": days, "class": name} for days, name in steps]}
    )


def put_rules(storage: S3Storage, *rules: Any) -> None:
    storage.client.put_bucket_lifecycle_configuration(
        Bucket=storage.bucket, LifecycleConfiguration={"Rules": list(rules)}
    )


def test_a_bucket_without_rules_has_none(storage: S3Storage) -> None:
    assert read_rules(storage).rules == ()
    assert compare(storage, (), None) == "equal"
    assert compare(storage, (), classes((30, "STANDARD_IA"))) == "absent"
    assert not apply_classes(storage, None)


def test_a_foreign_rule_that_expires_backups_is_found(storage: S3Storage) -> None:
    put_rules(storage, FOREIGN)
    assert dangers(storage, read_rules(storage).rules) == []
    put_rules(storage, FOREIGN, {**FOREIGN, "ID": "all", "Filter": {"Prefix": "some/"}})
    (danger,) = dangers(storage, read_rules(storage).rules)
    assert danger.startswith("rule all removes objects of the backups after 9 days")


def test_ours_is_added_and_taken_away_and_theirs_stays(storage: S3Storage) -> None:
    put_rules(storage, FOREIGN)
    wanted = classes((60, "STANDARD_IA"))
    assert apply_classes(storage, wanted)
    rules = read_rules(storage).rules
    assert {rule["ID"] for rule in rules} == {"logs", rule_id(storage)}
    assert compare(storage, rules, wanted) == "equal"
    assert compare(storage, rules, classes((90, "STANDARD_IA"))) == "differs"
    assert compare(storage, rules, None) == "left over"
    assert not apply_classes(storage, wanted), "the second time changes nothing"
    assert apply_classes(storage, None)
    assert [rule["ID"] for rule in read_rules(storage).rules] == ["logs"]


@pytest.mark.parametrize(
    ("rule", "found"),
    [
        ({"Filter": {"Prefix": ""}, "Expiration": {"Days": 1}}, 1),
        ({"Prefix": "some/prefix/packs/aa", "Expiration": {"Date": "2027-01-01"}}, 1),
        ({"Filter": {"And": {"Prefix": "some", "ObjectSizeGreaterThan": 1}}, "Expiration": {"Days": 1}}, 1),
        ({"Filter": {"Prefix": ""}, "Transitions": [{"Days": 90, "StorageClass": "DEEP_ARCHIVE"}]}, 1),
        ({"Filter": {"Prefix": "other/"}, "Expiration": {"Days": 1}}, 0),
        ({"Filter": {"Prefix": ""}, "Expiration": {"ExpiredObjectDeleteMarker": True}}, 0),
        ({"Filter": {"Prefix": ""}, "NoncurrentVersionExpiration": {"NoncurrentDays": 30}}, 0),
        ({"Filter": {"Tag": {"Key": "a", "Value": "b"}}, "Expiration": {"Days": 1}}, 0),
        ({"Status": "Disabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 1}}, 0),
    ],
    ids=["all", "old form", "and", "thawed", "elsewhere", "markers", "versions", "tagged", "disabled"],
)
def test_what_a_rule_would_do(storage: S3Storage, rule: Any, found: int) -> None:
    assert len(dangers(storage, [{"Status": "Enabled", **rule}])) == found


def test_the_rule_is_of_packs_alone(storage: S3Storage) -> None:
    rule = wanted_rule(storage, classes((30, "STANDARD_IA"), (180, "GLACIER_IR")))
    assert rule is not None
    assert rule["Filter"] == {"Prefix": "some/prefix/packs/"}
    assert [step["Days"] for step in rule["Transitions"]] == [30, 180]
    assert dangers(storage, [rule]) == []
