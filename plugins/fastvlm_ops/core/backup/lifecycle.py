"""The bucket's lifecycle rules: ours, that moves packs to other classes, and those of others, which stay.

A rule that expires objects below the repository's prefix would destroy backups without anybody asking.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from botocore.exceptions import ClientError

from fastvlm_ops.core.backup.errors import StorageError
from fastvlm_ops.core.backup.storage import S3Storage
from fastvlm_ops.core.config import StorageClasses

T = TypeVar("T")

Rule = dict[str, Any]
Difference = Literal["equal", "absent", "differs", "left over"]

_NONE_CODES = {"NoSuchLifecycleConfiguration"}
_UNKNOWN_CODES = {"NotImplemented", "MethodNotAllowed"}
_SLOW = {"GLACIER", "DEEP_ARCHIVE"}
_MINIMUM_SIZE = "TransitionDefaultMinimumObjectSize"


@dataclass(frozen=True)
class Rules:
    """What a bucket has. ``minimum_size`` is a setting of all rules, which is kept as it is."""

    rules: tuple[Rule, ...] = ()
    minimum_size: str | None = None


def read_rules(storage: S3Storage) -> Rules:
    """The bucket's rules; none where the server does not know of any.

    :raises AccessDeniedError: the permission s3:GetLifecycleConfiguration is missing
    """
    bucket = storage.bucket
    answer = _ask(
        storage,
        "GetLifecycleConfiguration",
        lambda: storage.client.get_bucket_lifecycle_configuration(Bucket=bucket),
        absent={},
    )
    return Rules(tuple(answer.get("Rules", ())), answer.get(_MINIMUM_SIZE))


def rule_id(storage: S3Storage) -> str:
    """Id of our rule: a bucket may hold several repositories."""
    return f"fastvlm-ops packs of {storage.prefix or 'the bucket'}"[:255]


def wanted_rule(storage: S3Storage, classes: StorageClasses | None) -> Rule | None:
    """Our rule as the file has it; None where it has none."""
    if classes is None:
        return None
    return {
        "ID": rule_id(storage),
        "Filter": {"Prefix": f"{storage.prefix}packs/"},
        "Status": "Enabled",
        "Transitions": [
            {"Days": step.after_days, "StorageClass": step.storage_class} for step in classes.packs
        ],
    }


def compare(storage: S3Storage, rules: Sequence[Rule], classes: StorageClasses | None) -> Difference:
    """How our rule in the bucket stands to the file."""
    wanted = wanted_rule(storage, classes)
    there = next((rule for rule in rules if rule.get("ID") == rule_id(storage)), None)
    if wanted is None:
        return "equal" if there is None else "left over"
    if there is None:
        return "absent"
    return "equal" if _meaning(there) == _meaning(wanted) else "differs"


def apply_classes(storage: S3Storage, classes: StorageClasses | None) -> bool:
    """Give the bucket our rule, or take it away where the file has none; all others stay as they are.

    :returns: whether anything was changed
    :raises AccessDeniedError: the permission s3:PutLifecycleConfiguration is missing
    """
    held = read_rules(storage)
    if compare(storage, held.rules, classes) == "equal":
        return False
    rules = [rule for rule in held.rules if rule.get("ID") != rule_id(storage)]
    wanted = wanted_rule(storage, classes)
    rules += [wanted] if wanted is not None else []
    bucket = storage.bucket
    extra: Any = {} if held.minimum_size is None else {_MINIMUM_SIZE: held.minimum_size}
    if rules:
        configuration: Any = {"Rules": rules}
        _ask(
            storage,
            "PutLifecycleConfiguration",
            lambda: storage.client.put_bucket_lifecycle_configuration(
                Bucket=bucket, LifecycleConfiguration=configuration, **extra
            ),
        )
    else:
        _ask(
            storage,
            "PutLifecycleConfiguration",  # the permission for it
            lambda: storage.client.delete_bucket_lifecycle(Bucket=bucket),
        )
    return True


def dangers(storage: S3Storage, rules: Sequence[Rule]) -> list[str]:
    """What rules would do to the repository: expire its objects, or move them to where a read must wait."""
    found = []
    for rule in rules:
        if rule.get("Status") != "Enabled" or not _touches(rule, storage.prefix):
            continue
        name = f"rule {rule.get('ID') or 'without an id'}"
        expiration = rule.get("Expiration", {})
        if "Days" in expiration or "Date" in expiration:
            when = f"after {expiration['Days']} days" if "Days" in expiration else f"on {expiration['Date']}"
            found.append(f"{name} removes objects of the backups {when}")
        for step in rule.get("Transitions", ()):
            if step.get("StorageClass") in _SLOW:
                found.append(
                    f"{name} moves objects of the backups to {step['StorageClass']}, which must be thawed"
                )
    return found


def _touches(rule: Mapping[str, Any], prefix: str) -> bool:
    """Whether a rule may apply to something below the prefix. Objects of backups have no tags."""
    where = rule.get("Filter", {})
    both = where.get("And", {})
    if where.get("Tag") or both.get("Tags"):
        return False
    below = both.get("Prefix") or where.get("Prefix") or rule.get("Prefix") or ""
    return bool(below.startswith(prefix) or prefix.startswith(below))


def _meaning(rule: Mapping[str, Any]) -> tuple[Any, ...]:
    """What of a rule matters: servers give it back in other words."""
    steps = [(step.get("Days"), step.get("StorageClass")) for step in rule.get("Transitions", ())]
    where = rule.get("Filter", {})
    below = where.get("Prefix") or where.get("And", {}).get("Prefix") or rule.get("Prefix") or ""
    others = sorted(
        name
        for name in rule
        if name not in ("ID", "Filter", "Prefix", "Status", "Transitions") and rule[name]
    )
    return below, rule.get("Status"), tuple(steps), tuple(others)


def _ask(storage: S3Storage, operation: str, request: Callable[[], T], absent: Any = None) -> Any:
    try:
        return storage.about_bucket(operation, request)
    except StorageError as error:
        cause = error.__cause__
        code = cause.response.get("Error", {}).get("Code") if isinstance(cause, ClientError) else None
        if absent is not None and code in _NONE_CODES | _UNKNOWN_CODES:
            return absent
        if code in _UNKNOWN_CODES:
            raise StorageError(
                f"{storage.bucket}: this server does not move objects to other classes; remove"
                " storage_classes from components.yaml"
            ) from error
        raise
