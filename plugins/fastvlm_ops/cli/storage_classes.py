"""``fastvlm-ops storage-classes``: the lifecycle rule that moves packs to other classes as they age."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from fastvlm_ops import settings
from fastvlm_ops.cli.errors import CommandError
from fastvlm_ops.core.backup.errors import BackupError
from fastvlm_ops.core.backup.lifecycle import (
    apply_classes,
    compare,
    dangers,
    read_rules,
    rule_id,
    wanted_rule,
)
from fastvlm_ops.core.config import ConfigError, load_components
from fastvlm_ops.hooks.connections import ConnectionSettingError
from fastvlm_ops.hooks.s3 import BackupRepositoryHook

if TYPE_CHECKING:
    from fastvlm_ops.core.backup.storage import S3Storage
    from fastvlm_ops.core.config import StorageClasses

_SAID = {
    "equal": "as in components.yaml",
    "absent": "not there yet: fastvlm-ops storage-classes apply",
    "differs": "not as in components.yaml: fastvlm-ops storage-classes apply",
    "left over": "there, but components.yaml has none any more: fastvlm-ops storage-classes apply",
}


def run(action: str, connection: str, tell: Callable[[str], None]) -> int:
    """Show or apply the rule.

    :param action: ``show`` or ``apply``
    :param connection: to the bucket, of who may read, or change, its lifecycle rules
    :param tell: takes one line
    :returns: 0 when the bucket has what the file says and no rule harms the backups, else 1
    :raises CommandError: a file, the connection or the bucket cannot be used
    """
    try:
        classes = load_components(settings.include_dir()).storage_classes
        storage = BackupRepositoryHook(connection).get_storage()
        if action == "apply":
            changed = apply_classes(storage, classes)
            tell(f"{storage.bucket}: {'changed' if changed else 'nothing to change'}")
        return _show(storage, classes, tell)
    except (BackupError, ConfigError, ConnectionSettingError, settings.SettingError) as error:
        raise CommandError(str(error)) from error


def _show(storage: S3Storage, classes: StorageClasses | None, tell: Callable[[str], None]) -> int:
    rules = read_rules(storage).rules
    difference = compare(storage, rules, classes)
    wanted = wanted_rule(storage, classes)
    for step in wanted["Transitions"] if wanted else ():
        tell(f"{storage.prefix}packs/ to {step['StorageClass']} after {step['Days']} days")
    if wanted is None:
        tell(f"{storage.prefix}packs/ stays in its class: components.yaml has no storage_classes")
    if wanted is not None or difference != "equal":
        tell(f"the rule {rule_id(storage)!r} is {_SAID[difference]}")
    others = [rule for rule in rules if rule.get("ID") != rule_id(storage)]
    tell(f"other rules of the bucket, which stay as they are: {len(others)}")
    found = dangers(storage, rules)
    for danger in found:
        tell(f"DANGER: {danger}")
    return int(difference != "equal" or bool(found))
