"""``fastvlm-ops reap-faults``: takes back the faults of drills whose time to live is over."""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastvlm_ops.cli.errors import CommandError

if TYPE_CHECKING:
    from fastvlm_ops.core.store import Store

#: Exit codes besides 0, when it was stopped or is done; and 2, when it was called wrongly.
LEFT = 1
BUSY = 4


def run(drill_dir: Path | None, once: bool, tell: Callable[[str], None]) -> int:
    """Look twice a second until SIGTERM or SIGINT; or once.

    :param drill_dir: folder of the drills; that of this Airflow's settings unless given
    :param once: whether to end after one look
    :param tell: takes one line
    :returns: 0 when it was stopped, or once: nothing is left; 1: something is, or rows are not up to date;
        4: another reaper is at work
    :raises CommandError: settings or the folder cannot be used
    """
    from fastvlm_ops import settings
    from fastvlm_ops.core.disaster_recovery.faults.errors import EntryError
    from fastvlm_ops.core.disaster_recovery.reaping import ReaperBusyError, Reaping

    def say(event: str, **facts: Any) -> None:
        tell(json.dumps({"at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}", "event": event, **facts}))
        sys.stdout.flush()

    try:
        reaping = Reaping(drill_dir or settings.drill_dir(), _open_store, settings.metrics_dir(), say)
        for number in (signal.SIGTERM, signal.SIGINT):
            # From another thread: this one may hold the event's lock when the signal comes.
            signal.signal(number, lambda *_: threading.Thread(target=reaping.stopping.set).start())
        if once:
            return 0 if reaping.once() else LEFT
        reaping.run()
    except ReaperBusyError as error:
        say("busy", problem=str(error))
        return BUSY
    except (EntryError, settings.SettingError) as error:
        raise CommandError(str(error)) from error
    return 0


def _open_store() -> Store:
    from fastvlm_ops.hooks.operations_db import OperationsDatabaseHook

    return OperationsDatabaseHook().open_store()
