"""``fastvlm-ops drills``: the safety lever of disaster-recovery drills."""

from __future__ import annotations

import argparse
import getpass
from collections.abc import Callable

from fastvlm_ops.cli.errors import CommandError


def add_command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], tell: Callable[[str], None]
) -> None:
    """Add the command.

    :param commands: of ``fastvlm-ops``
    :param tell: takes one line
    """
    text = (
        "Stop all disaster-recovery drills, or allow them again. While they are stopped, nothing is broken,"
        " and a drill that runs is broken off: its fault is taken back. No drill can be started by this."
    )
    command = commands.add_parser("drills", help="stop all drills, or allow them again", description=text)
    command.add_argument("action", choices=("state", "stop", "allow"))
    command.add_argument("--reason", default="", help="why, for people; needed to stop and to allow")
    command.set_defaults(run=lambda options: run(options.action, options.reason, tell))


def run(action: str, reason: str, tell: Callable[[str], None]) -> int:
    """Show or pull the lever.

    :param action: ``state``, ``stop`` or ``allow``
    :param reason: for people
    :param tell: takes one line
    :returns: 0
    :raises CommandError: no reason was given, or the operations database cannot be used
    """
    from fastvlm_ops import settings
    from fastvlm_ops.core.disaster_recovery.lever import State, pull_lever, read_lever
    from fastvlm_ops.core.store import StoreError
    from fastvlm_ops.hooks.operations_db import OperationsDatabaseError, OperationsDatabaseHook

    if action != "state" and not reason.strip():
        raise CommandError(f"say why: fastvlm-ops drills {action} --reason '…'")
    try:
        with OperationsDatabaseHook().open_store() as store:
            if action == "state":
                lever = read_lever(store)
            else:
                state: State = "stopped" if action == "stop" else "allowed"
                lever = pull_lever(store, state, reason=reason.strip(), by=getpass.getuser())
    except (OperationsDatabaseError, settings.SettingError, StoreError) as error:
        raise CommandError(str(error)) from error
    tell(lever.text)
    return 0
