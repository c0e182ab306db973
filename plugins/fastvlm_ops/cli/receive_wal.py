"""``fastvlm-ops receive-wal``: keeps receiving the write-ahead log of a PostgreSQL component."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from fastvlm_ops.cli.errors import CommandError

if TYPE_CHECKING:
    from fastvlm_ops.core.backup.postgresql.wal_receiver import WalReceiver

#: Exit codes besides 0, when it was stopped or there was no more; and 2, when it was called wrongly.
FAILED = 1
REFUSED = 3
BUSY = 4


def run(component: str, once: bool, tell: Callable[[str], None]) -> int:
    """Receive until SIGTERM or SIGINT; or what there is now.

    :param component: name of a component of kind ``postgresql`` that has a slot
    :param once: whether to end when all finished segments are stored
    :param tell: takes one line
    :returns: 0 when it was stopped or is done; 3 when a person has to look: the server or the bucket has
        other WAL; 4 when another receiver uses the spool; 1 for other failures
    :raises CommandError: definitions, settings or connections cannot be used
    """
    from fastvlm_ops.core.backup.errors import BackupError, CorruptionError
    from fastvlm_ops.core.backup.postgresql.wal_spool import OtherSystemError, SpoolBusyError

    def log(line: str) -> None:
        tell(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {component}: {line}")
        sys.stdout.flush()

    receiver = _receiver(component, log)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: receiver.stop())
    try:
        receiver.run(once=once)
    except SpoolBusyError as error:
        log(str(error))
        return BUSY
    except (OtherSystemError, CorruptionError) as error:
        log(f"REFUSED: {error}")
        return REFUSED
    except BackupError as error:
        log(f"failed: {error}")
        return FAILED
    log("stopped" if not once else "everything that is finished is stored")
    return 0


def _receiver(name: str, tell: Callable[[str], None]) -> WalReceiver:
    from fastvlm_ops import settings
    from fastvlm_ops.core.backup.errors import SourceError
    from fastvlm_ops.core.backup.postgresql.wal_receiver import WalReceiver
    from fastvlm_ops.core.config import ConfigError, load_components
    from fastvlm_ops.hooks.connections import ConnectionSettingError
    from fastvlm_ops.hooks.operations_db import OperationsDatabaseError
    from fastvlm_ops.hooks.s3 import BackupRepositoryHook
    from fastvlm_ops.hooks.wal import received_component, receiver_settings

    try:
        component, slot = received_component(load_components(settings.include_dir()), name)
        BackupRepositoryHook().get_storage()  # what cannot be used is said before anything begins
        return WalReceiver(
            receiver_settings(component, slot),
            lambda: BackupRepositoryHook().open_repository(),  # as the connection is by then
            tell,
        )
    except (
        ConfigError,
        ConnectionSettingError,
        OperationsDatabaseError,
        SourceError,
        settings.SettingError,
    ) as error:
        raise CommandError(str(error)) from error
