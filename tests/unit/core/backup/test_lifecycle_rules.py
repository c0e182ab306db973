"""Our lifecycle rule as it would be, and what rules of others would do to backups."""

from __future__ import annotations

from typing import Any

import pytest

from fastvlm_ops.core.backup import S3Storage, create_client
from fastvlm_ops.core.backup.lifecycle import compare, dangers, wanted_rule
from fastvlm_ops.core.config import StorageClasses

FOREIGN = {
    "ID": "logs",
    "Filter": {"Prefix": "logs/"},
    "Status": "Enabled",
    "Expiration": {"Days": 9},
}


def classes(*steps: tuple[int, str]) -> StorageClasses:
    """What a definition file with these steps means."""
    packs = [{"after_days": days, "class": name} for days, name in steps]
    return StorageClasses.model_validate({"packs": packs})


@pytest.fixture(scope="module")
def storage() -> S3Storage:
    """Of a bucket that nobody asks."""
    client = create_client(access_key_id="key", secret_access_key="secret")
    return S3Storage(client, "bucket", "some/prefix")


def test_without_rules(storage: S3Storage) -> None:
    assert compare(storage, (), None) == "equal"
    assert compare(storage, (), classes((30, "STANDARD_IA"))) == "absent"


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
