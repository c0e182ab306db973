"""``fastvlm-ops keys``: the secrets that open the backup repository."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fastvlm_ops.cli.errors import CommandError
from fastvlm_ops.cli.key_secrets import add_secret_options, named, secret_of

if TYPE_CHECKING:
    from fastvlm_ops.core.backup.key_slots import KeyState, RotationPlan, SlotState
    from fastvlm_ops.core.backup.keys import Secret
    from fastvlm_ops.core.backup.repository import Repository
    from fastvlm_ops.hooks.s3 import BackupRepositoryHook

Tell = Callable[[str], None]
Commands = argparse._SubParsersAction  # argparse has no public name for what add_subparsers returns

_DRY = "Nothing was changed. Again with --yes does it."


def add_commands(commands: Commands[argparse.ArgumentParser], tell: Tell) -> None:
    """Add ``keys`` and what it has below it to the command line.

    :param commands: of ``fastvlm-ops``
    :param tell: takes one line
    """
    text = (
        "Look after the secrets that open the backup repository behind the connection fastvlm_s3. Each has a"
        " key slot in the bucket. Secrets are asked for, or read from files or variables; never given as"
        " arguments."
    )
    keys = commands.add_parser("keys", help="list, add, remove and rotate keys", description=text)
    below = keys.add_subparsers(title="commands", required=True, metavar="COMMAND")
    parsers = {
        name: below.add_parser(name, help=help_text, description=help_text)
        for name, help_text in (
            ("create", "make the repository, with a key slot for each secret of the connection"),
            ("list", "show the key slots, and the last epoch that each can read"),
            ("add", "add a key slot for another passphrase or key file"),
            ("remove", "remove a key slot; without --yes, only say what would be done"),
            ("rotate", "encrypt what is stored from now on by a new key; without --yes, only say so"),
            ("check", "verify every key slot and epoch, and that each secret of the connection opens"),
        )
    }
    for name, parser in parsers.items():
        parser.add_argument("--connection", default="fastvlm_s3", metavar="ID", help="of another connection")
        parser.set_defaults(run=lambda options, action=_ACTIONS[name]: _run(action, options, tell))
    parsers["list"].add_argument("--json", action="store_true", help="print the slots as JSON")
    parsers["add"].add_argument(
        "--label", default="", metavar="TEXT", help="whose it is, or where it is kept"
    )
    add_secret_options(parsers["add"])
    parsers["add"].add_argument(
        "--renew",
        action="store_true",
        help="write the slots of the connection's own secrets anew, and remove the ones they had",
    )
    parsers["remove"].add_argument("slot", metavar="SLOT", help="its id, or what it begins with")
    add_secret_options(
        parsers["remove"], prefix="other-", of="that opens another slot, when the slot in use goes"
    )
    parsers["rotate"].add_argument(
        "--without",
        action="append",
        default=[],
        metavar="SLOT",
        help="leave it out; may be given several times",
    )
    for name in ("remove", "rotate"):
        parsers[name].add_argument("--yes", action="store_true", help="do it")


Action = Callable[["BackupRepositoryHook", argparse.Namespace, Tell], int]


def _run(action: Action, options: argparse.Namespace, tell: Tell) -> int:
    try:
        from fastvlm_ops.hooks.connections import ConnectionSettingError
        from fastvlm_ops.hooks.s3 import BackupRepositoryHook
    except ImportError:
        raise CommandError("Airflow is not installed here, which has the connection; install it") from None
    from fastvlm_ops.core.backup.errors import AccessDeniedError, BackupError

    try:
        return action(BackupRepositoryHook(options.connection), options, tell)
    except AccessDeniedError as error:
        raise CommandError(
            f"{error}; name a connection whose user may, by --connection (docs/backup-roles.md)"
        ) from error
    except (BackupError, ConnectionSettingError) as error:
        raise CommandError(str(error)) from error


def _create(hook: BackupRepositoryHook, options: argparse.Namespace, tell: Tell) -> int:
    repository = hook.initialise_repository()
    tell(f"{repository.storage} holds the repository {repository.repository_id}")
    return 0


def _list(hook: BackupRepositoryHook, options: argparse.Namespace, tell: Tell) -> int:
    state = _state(hook.open_repository())
    if options.json:
        tell(
            json.dumps({"newest_epoch": state.newest_epoch, "slots": [one.as_dict() for one in state.slots]})
        )
        return 0
    for line in _table(state):
        tell(line)
    return 0


def _state(repository: Repository) -> KeyState:
    from fastvlm_ops.core.backup.key_slots import read_keys

    return read_keys(repository)


def _table(state: KeyState) -> Iterator[str]:
    rows = [("SLOT", "KIND", "CREATED", "READS EPOCHS TO", "LABEL", "")]
    for slot in state.slots:
        reads = f"{slot.reads_to} of {state.newest_epoch}" if slot.reads_to else "unknown"
        rows.append((slot.slot, slot.kind, slot.created, reads, slot.label, ", ".join(_notes(slot, state))))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        yield "  ".join([*cells, row[5]]).rstrip()


def _notes(slot: SlotState, state: KeyState) -> Iterator[str]:
    if slot.is_in_use:
        yield "in use"
    if slot.problem:
        yield slot.problem
    elif slot.reads_to < state.newest_epoch:
        yield "left out of later epochs"
    elif not slot.has_exchange_key:
        yield "of an earlier version: renew it (keys add --renew)"


def _add(hook: BackupRepositoryHook, options: argparse.Namespace, tell: Tell) -> int:
    from fastvlm_ops.core.backup.key_slots import add_slot

    if options.renew:
        if named(options):
            raise CommandError("--renew takes the secrets of the connection; give no other")
        return _renew(hook, options.label, tell)
    if not named(options):
        raise CommandError("say what is to open it: --passphrase, --new-key-file FILE, or another (--help)")
    repository = hook.open_repository()  # before a file is made, or somebody is asked
    with _new_secret(options) as secret:
        slot = add_slot(repository, secret, label=options.label)
    tell(f"key slot {slot} was added, and opens by it")
    if options.new_key_file:
        tell(f"{options.new_key_file} holds the key: copy it to where it is needed, and to a second place")
    return 0


@contextmanager
def _new_secret(options: argparse.Namespace) -> Iterator[Secret]:
    """The secret; a key file that was made for it goes again when no slot comes of it."""
    secret = secret_of(options, confirm=True)
    try:
        yield secret
    except BaseException:
        if options.new_key_file:
            Path(options.new_key_file).unlink(missing_ok=True)
        raise


def _renew(hook: BackupRepositoryHook, label: str, tell: Tell) -> int:
    from fastvlm_ops.core.backup.key_slots import add_slot, remove_slot
    from fastvlm_ops.core.backup.repository import open_repository

    storage = hook.get_storage()
    for secret in hook.get_secrets():
        repository = open_repository(storage, secret)
        old = next(slot for slot in _state(repository).slots if slot.is_in_use)
        slot = add_slot(repository, secret, label=label or old.label, renew=True)
        tell(f"key slot {slot} was added in place of {old}")
        _tell_removal(old, remove_slot(repository, old.slot, secret), tell)
    return 0


def _remove(hook: BackupRepositoryHook, options: argparse.Namespace, tell: Tell) -> int:
    from fastvlm_ops.core.backup.key_slots import plan_removal, remove_slot

    repository, secrets = hook.open_repository(), hook.get_secrets()
    if named(options, prefix="other_"):
        secrets = (*secrets, secret_of(options, prefix="other_"))
    slot = plan_removal(repository, options.slot, secrets)
    if not options.yes:
        tell(f"would remove key slot {slot}")
        tell(_DRY)
        return 0
    removed = remove_slot(repository, slot.slot, secrets)
    code = _tell_removal(slot, removed, tell)
    if slot.is_in_use and not code:
        tell(f"it was the one in use: give the connection {options.connection} the other secret now")
    return code


def _tell_removal(slot: SlotState, removed: object, tell: Tell) -> int:
    from fastvlm_ops.core.backup.versions import Locked

    if isinstance(removed, Locked):
        until = (
            "somebody lifts its legal hold"
            if removed.until is None
            else f"{removed.until:%Y-%m-%d %H:%M} UTC"
        )
        tell(f"key slot {slot} is locked until {until}, and opens the repository as before; remove it then")
        tell(f"until then: fastvlm-ops keys rotate --without {slot.slot[:8]} keeps new objects from it")
        return 1
    tell(f"key slot {slot} was removed; who has used it knows the keys of what is stored already")
    tell("fastvlm-ops keys rotate encrypts what is stored from now on by another key")
    return 0


def _rotate(hook: BackupRepositoryHook, options: argparse.Namespace, tell: Tell) -> int:
    from fastvlm_ops.core.backup.key_slots import plan_rotation, rotate_epoch

    repository = hook.open_repository()
    if not options.yes:
        plan = plan_rotation(repository, options.without)
        _tell_rotation(plan, "would be made", "would get its key", tell)
        if plan.refusal is not None:
            raise CommandError(f"but the data key cannot be rotated: {plan.refusal}")
        tell(f"Look whether you know each of them. {_DRY}")
        return 0
    _tell_rotation(rotate_epoch(repository, options.without), "was made", "has its key", tell)
    tell("runs that have begun go on with the epoch before; nothing that is stored was written again")
    return 0


def _tell_rotation(plan: RotationPlan, made: str, gets: str, tell: Tell) -> None:
    tell(f"epoch {plan.epoch} {made}")
    for slot in plan.receivers:
        tell(f"{gets}: {slot}")
    for slot in plan.left_out:
        tell(f"left out: {slot}")


def _check(hook: BackupRepositoryHook, options: argparse.Namespace, tell: Tell) -> int:
    from fastvlm_ops.core.backup.errors import CorruptionError, WrongKeyError
    from fastvlm_ops.core.backup.repository import open_repository

    storage, code = hook.get_storage(), 0
    repository = None
    for secret in hook.get_secrets():
        what = "the passphrase" if isinstance(secret, str) else "the key file"
        try:
            repository = open_repository(storage, secret)
            repository.ring.require_newest()
            tell(f"{what} of the connection opens the repository, epoch {repository.ring.current}")
        except (WrongKeyError, CorruptionError) as error:
            tell(str(error))
            code = 1
    if repository is None:
        return 1
    state = _state(repository)
    for problem in state.problems.values():
        tell(problem)
    epochs = "1 epoch" if state.newest_epoch == 1 else f"{state.newest_epoch} epochs"
    slots = "1 key slot" if len(state.slots) == 1 else f"{len(state.slots)} key slots"
    tell(f"{slots}, {epochs}: {'DAMAGED' if state.problems else 'ok'}")
    return 1 if state.problems else code


_ACTIONS: dict[str, Action] = {
    "create": _create,
    "list": _list,
    "add": _add,
    "remove": _remove,
    "rotate": _rotate,
    "check": _check,
}
