"""Airflow's own database and what people keep in it, as sources: exported to a folder, then stored as one."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastvlm_ops.core.backup.errors import DumpError, SourceError
from fastvlm_ops.core.backup.postgresql.address import connect_parameters, libpq_environment, shown
from fastvlm_ops.core.backup.sources import FolderSource, Source, SourceView
from fastvlm_ops.core.backup.sqlite_source import SQLiteSource
from fastvlm_ops.core.programs import ProgramError, run, run_airflow

if TYPE_CHECKING:
    from sqlalchemy import URL

_DUMP_SECONDS = 6 * 3600.0  # the task's own time-out ends it earlier
_EXPORT_SECONDS = 600.0
_UNDECIPHERABLE = r"Can't decrypt _val for key=([^,\s]+)"
_FERNET = "Set [core] fernet_key of the worker to the key that they were stored with"


def airflow_database_source(database: URL, scratch_dir: Path) -> Source:
    """Return the source of Airflow's own database.

    :param database: its address
    :param scratch_dir: for the copy of it
    :raises SourceError: it is neither SQLite nor PostgreSQL
    """
    if database.drivername == "sqlite":
        return SQLiteSource(Path(database.database or ""), scratch_dir=scratch_dir)
    return PostgreSQLSource(_postgresql(database), scratch_dir)


class _ExportedSource(ABC):
    """What is exported into a folder of its own, read there, and removed whatever happens."""

    kind: str
    path: Path

    def __init__(self, scratch_dir: Path) -> None:
        self.scratch_dir = scratch_dir

    @abstractmethod
    def check(self) -> None: ...

    @abstractmethod
    def export(self, folder: Path) -> dict[str, Any]:
        """Write it into an empty folder; return what proves that it is whole."""

    def fingerprint(self) -> None:
        return None

    @contextmanager
    def open(self) -> Iterator[SourceView]:
        self.check()
        try:
            self.scratch_dir.mkdir(parents=True, exist_ok=True)
            folder = tempfile.TemporaryDirectory(prefix="fastvlm-airflow-", dir=self.scratch_dir)  # 0700
        except OSError as error:
            raise SourceError(
                f"{self.path} cannot be exported to {self.scratch_dir}: {error.strerror}"
            ) from error
        with folder as scratch:
            exported = Path(scratch) / "export"
            exported.mkdir(mode=0o700)
            evidence = self.export(exported)
            with FolderSource(exported, on_change="fail").open() as view:
                view.evidence = evidence
                view.can_skip_unchanged = False  # the files are new each time
                yield view


class PostgreSQLSource(_ExportedSource):
    """A PostgreSQL database as ``pg_dump`` writes it to a folder, uncompressed, so that chunks recur.

    :param database: its address
    :param scratch_dir: for the dump, which takes about as much room as the database
    """

    kind = "airflow_database"

    def __init__(self, database: URL, scratch_dir: Path) -> None:
        super().__init__(scratch_dir)
        self.database = database
        self.path = _shown(database)

    def check(self) -> None:
        ours, theirs = _pg_dump_version(), _server_version(self.database)
        if _major(ours) < _major(theirs):
            raise SourceError(
                f"pg_dump is {ours} and cannot dump {self.path}, whose server is PostgreSQL {theirs}; put a"
                f" pg_dump of version {_major(theirs)} or newer first on PATH of every worker"
                f" (Debian, Ubuntu: postgresql-client-{_major(theirs)})"
            )

    def export(self, folder: Path) -> dict[str, Any]:
        dump = folder / "dump"  # which pg_dump makes itself
        arguments = ["--format=directory", "--compress=0", "--no-password", f"--file={dump}"]
        try:
            run(
                [_pg_dump(), *arguments],
                name="pg_dump",
                environment=libpq_environment(self.database),
                timeout_seconds=_DUMP_SECONDS,
            )
        except ProgramError as error:
            raise DumpError(f"{self.path} cannot be dumped: {error}:\n{error.tail()}") from None
        return {"pg_dump_version": _pg_dump_version(), "server_version": _server_version(self.database)}


class AirflowObjectsSource(_ExportedSource):
    """Airflow's connections, variables and pools, by Airflow's own exports: decrypted, so that they load
    into an Airflow with another Fernet key.

    :param database: address of Airflow's own database
    :param scratch_dir: for the files
    """

    kind = "airflow_objects"

    def __init__(self, database: URL, scratch_dir: Path) -> None:
        super().__init__(scratch_dir)
        self.database = database if database.drivername == "sqlite" else _postgresql(database)
        self.path = _shown(database)

    def check(self) -> None:
        if self.database.drivername == "sqlite":
            SQLiteSource(Path(self.database.database or "")).check()
        else:
            _server_version(self.database)

    def export(self, folder: Path) -> dict[str, Any]:
        kinds = {"connections": ["--file-format=json"], "variables": [], "pools": []}
        return {name: self._export_one(name, folder, options) for name, options in kinds.items()}

    def _export_one(self, name: str, folder: Path, options: Sequence[str]) -> int:
        """Export one kind of objects; returns how many there are."""
        file = folder / f"{name}.json"
        file.touch(mode=0o600)
        try:
            output = run_airflow(
                [name, "export", str(file), *options],
                database=self.database,
                timeout_seconds=_EXPORT_SECONDS,
                folder=folder,
            )
        except ProgramError as error:
            raise DumpError(f"{name} of {self.path} cannot be exported: {_reason(error)}") from None
        if undecipherable := re.findall(_UNDECIPHERABLE, output.text + output.errors):
            # Airflow exports null in their place, and is content.
            names = ", ".join(sorted(set(undecipherable)))
            raise SourceError(
                f"{name} of {self.path} cannot be decrypted: {names}. {_FERNET}, or delete them"
            )
        try:
            content = json.loads(file.read_bytes())
        except ValueError:
            content = None
        if not isinstance(content, dict):
            raise DumpError(f"{name} of {self.path} cannot be exported: Airflow wrote no JSON mapping")
        return len(content)


def _postgresql(database: URL) -> URL:
    if not database.drivername.startswith("postgresql"):
        raise SourceError(
            f"{database.drivername!r} is not supported as Airflow's database; it must be sqlite or postgresql"
        )
    return database


def _shown(database: URL) -> Path:
    """What stands for the address in messages and manifests: where, but not who, let alone a password."""
    return Path(database.database or "") if database.drivername == "sqlite" else shown(database)


def _pg_dump() -> str:
    found = shutil.which("pg_dump")
    if found is None:
        raise SourceError(
            "pg_dump is not on PATH of this worker; install PostgreSQL's client programs (Debian, Ubuntu:"
            " postgresql-client)"
        )
    return found


def _pg_dump_version() -> str:
    try:
        arguments = [_pg_dump(), "--version"]
        output = run(arguments, name="pg_dump", environment=os.environ, timeout_seconds=60).text
    except ProgramError as error:
        raise SourceError(f"{error}:\n{error.tail()}") from None
    version = re.search(r"\b\d+(\.\d+)*", output)
    if version is None:
        raise SourceError(f"pg_dump does not say which version it is, but {output.strip()!r}")
    return version[0]


def _server_version(database: URL) -> str:
    try:
        import psycopg
    except ImportError:
        raise SourceError(
            "psycopg is not installed, which PostgreSQL needs: pip install 'fastvlm-ops[postgres]'"
        ) from None
    try:
        with psycopg.connect(**connect_parameters(database)) as connection:
            number = connection.info.server_version
    except psycopg.Error as error:
        raise DumpError(f"{_shown(database)} cannot be reached: {str(error).strip()}") from None
    return f"{number // 10000}.{number % 10000}"


def _major(version: str) -> int:
    return int(version.split(".")[0])


def _reason(error: ProgramError) -> str:
    """How it failed, with the kind of error alone: what Airflow writes then may hold what it exports."""
    kinds = re.findall(r"^(?:\w+\.)*(\w+(?:Error|Exception|Token))\b", error.output, re.M)
    what = f"{error} ({kinds[-1]})" if kinds else str(error)
    if "decrypt" in error.output.lower() or "InvalidToken" in kinds:
        what += f". {_FERNET}"
    return what
