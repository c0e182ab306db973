"""The ``[fastvlm_ops]`` section of Airflow's configuration.

Read anew at each call, so a task sees its worker's environment. Declared, with defaults and examples, in
``provider_info.py``.
"""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

from airflow.sdk import conf

SECTION = "fastvlm_ops"
_WAL_SPOOL_MAX_GIB = "8"
_GIB_LIMIT = 1 << 20
_DRILL_ENVIRONMENTS = "demo,staging"
_ENVIRONMENT = r"[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?"


class SettingError(Exception):
    """A setting is missing or cannot be used."""

    retryable = False

    def __init__(self, option: str, message: str) -> None:
        super().__init__(
            f"[{SECTION}] {option} {message}. Set it in airflow.cfg or as"
            f" AIRFLOW__{SECTION.upper()}__{option.upper()}."
        )


def include_dir() -> Path:
    """Return the folder of the definition files: ``include`` beside the DAGs folder unless set.

    :raises SettingError: there is no such folder
    """
    path = include_path()
    if not path.is_dir():
        raise SettingError("include_dir", f"is {path}, which is not a folder")
    return path


def include_path() -> Path:
    """Return where :func:`include_dir` is or is to be, whether or not it is there.

    :raises SettingError: it is not an absolute path
    """
    return _path("include_dir") or Path(conf.get("core", "dags_folder")).parent / "include"


def kit_dir() -> Path | None:
    """Return the folder that relative paths of components start from; None where it is not set.

    :raises SettingError: it is not an absolute path
    """
    return _path("kit_dir")


def restore_dir() -> Path:
    """Return the only folder below which restores write, but for those in place; it need not exist yet.

    :raises SettingError: it is not set, or is not an absolute path
    """
    path = _path("restore_dir")
    if path is None:
        raise SettingError("restore_dir", "is not set, and restores write nowhere else")
    return path


def scratch_dir() -> Path:
    """Return the folder for copies of databases: the system's temporary folder unless set.

    :raises SettingError: there is no such folder
    """
    path = _path("scratch_dir") or Path(tempfile.gettempdir())
    if not path.is_dir():
        raise SettingError("scratch_dir", f"is {path}, which is not a folder")
    return path


def database_path() -> Path:
    """Return the file of the operations database: ``fastvlm_ops.db`` in Airflow's home unless set.

    Used where there is no connection ``fastvlm_ops_db``.

    :raises SettingError: it is not an absolute path, or its folder does not exist
    """
    path = _path("database_path") or _home() / "fastvlm_ops.db"
    if not path.parent.is_dir():
        raise SettingError("database_path", f"is {path}, whose folder does not exist")
    return path


def pruning_conn_id() -> str:
    """Return the connection of the tasks that remove backups: ``fastvlm_s3`` unless set."""
    value = conf.get(SECTION, "pruning_conn_id", fallback="")
    return (value or "").strip() or "fastvlm_s3"


def metrics_dir() -> Path | None:
    """Return the folder that metrics are written to, for Prometheus's node exporter; None where it is unset.

    :raises SettingError: there is no such folder
    """
    path = _path("metrics_dir")
    if path is not None and not path.is_dir():
        raise SettingError("metrics_dir", f"is {path}, which is not a folder")
    return path


def drill_dir() -> Path:
    """Return the folder of running drills: their plans, faults and measurements; ``drills`` in Airflow's home
    unless set. It is made where absent, and must outlast the worker's temporary files.

    :raises SettingError: it is not an absolute path
    """
    return _path("drill_dir") or _home() / "drills"


def drill_environments() -> tuple[str, ...]:
    """Return the environments in which drills may break anything: ``demo`` and ``staging`` unless set.

    :raises SettingError: a name in the list is none that a target could give
    """
    value = conf.get(SECTION, "drill_environments", fallback="") or _DRILL_ENVIRONMENTS
    names = tuple(name.strip() for name in value.split(",") if name.strip())
    for name in names:
        if not re.fullmatch(_ENVIRONMENT, name):
            raise SettingError(
                "drill_environments",
                f"has {name!r}, which is no name; it must be a list as in {_DRILL_ENVIRONMENTS}",
            )
    return names


def drill_queue() -> str | None:
    """Return the queue of the worker that drills run on: the one whose processes and files they reach; None
    for the default queue.
    """
    return (conf.get(SECTION, "drill_queue", fallback="") or "").strip() or None


def postgresql_bin_dir() -> Path | None:
    """Return the only folder to look for PostgreSQL's programs in; None for the usual places.

    :raises SettingError: there is no such folder
    """
    path = _path("postgresql_bin_dir")
    if path is not None and not path.is_dir():
        raise SettingError("postgresql_bin_dir", f"is {path}, which is not a folder")
    return path


def wal_spool_dir() -> Path:
    """Return the folder in which received WAL waits for the bucket: ``wal`` in ``scratch_dir`` unless set.

    It is made where absent.

    :raises SettingError: it is not an absolute path, or there is no ``scratch_dir``
    """
    return _path("wal_spool_dir") or scratch_dir() / "wal"


def wal_spool_max_gib() -> float:
    """Return how much WAL may wait in the spool of a component, in GiB: 8 unless set.

    :raises SettingError: it is not a number above 0
    """
    value = conf.get(SECTION, "wal_spool_max_gib", fallback="") or _WAL_SPOOL_MAX_GIB
    try:
        gib = float(value)
    except ValueError:
        gib = 0.0
    if not 0 < gib < _GIB_LIMIT:
        raise SettingError("wal_spool_max_gib", f"is {value!r}; it must be a number of GiB above 0")
    return gib


def _home() -> Path:
    return Path(os.path.expandvars(os.environ.get("AIRFLOW_HOME", "~/airflow"))).expanduser().absolute()


def _path(option: str) -> Path | None:
    value = conf.get(SECTION, option, fallback="")
    if not value or not value.strip():
        return None
    path = Path(value.strip())
    if not path.is_absolute():
        raise SettingError(option, f"is {value!r}, which is not an absolute path")
    return path
