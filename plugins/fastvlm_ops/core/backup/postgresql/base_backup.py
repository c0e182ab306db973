"""A PostgreSQL cluster as a source: the stream of pg_basebackup, taken apart member by member.

Nothing goes to a disk, and memory does not grow with the cluster. Relation files are cut at pages, so that a
second base costs what has changed. The WAL that the base needs is in it, so that it restores by itself.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fastvlm_ops.core.backup.chunking import ReadInto
from fastvlm_ops.core.backup.errors import DumpError, SourceError
from fastvlm_ops.core.backup.postgresql.address import libpq_environment, shown
from fastvlm_ops.core.backup.postgresql.base_proof import BaseProof
from fastvlm_ops.core.backup.postgresql.cluster import Cluster, connected, describe, identify, identify_on
from fastvlm_ops.core.backup.postgresql.programs import Programs, find_programs
from fastvlm_ops.core.backup.postgresql.readiness import check_ready, layout_of, require_no_tablespaces
from fastvlm_ops.core.backup.postgresql.tar_stream import Member, TarStream
from fastvlm_ops.core.backup.sources import ScannedEntry, SourceView, StreamedEntry
from fastvlm_ops.core.backup.tree import Entry
from fastvlm_ops.core.programs import ProgramError, ProgramStream, stream

if TYPE_CHECKING:
    from sqlalchemy import URL

OnDamagedPages = Literal["fail", "warn"]

_IDLE_SECONDS = 900.0  # a checkpoint comes before the first byte
_ERROR_LINES = 15
_DAMAGED = "checksum error occurred"
_DAMAGED_PAGE = "checksum verification fail"


class PostgreSQLClusterSource:
    """A whole cluster, primary or standby, backed up while it is used.

    :param url: address of one of its databases; the user needs the right to replicate
    :param programs: pg_basebackup, of the server's version or newer; found when needed where None
    :param programs_folder: the only place to look for it
    :param on_damaged_pages: what happens when pages fail their checksums: ``fail`` ends the backup, ``warn``
        stores what was read and says so
    :param idle_seconds: how long the server may send nothing before the backup fails
    """

    kind = "postgresql"

    def __init__(
        self,
        url: URL,
        *,
        programs: Programs | None = None,
        programs_folder: Path | None = None,
        on_damaged_pages: OnDamagedPages = "fail",
        idle_seconds: float = _IDLE_SECONDS,
    ) -> None:
        self.url = url
        self.path = shown(url)
        self._programs = programs
        self._programs_folder = programs_folder
        self._on_damaged_pages = on_damaged_pages
        self._idle_seconds = idle_seconds

    def check(self) -> None:
        self._program(check_ready(self.url))

    def fingerprint(self) -> None:
        return None

    @contextlib.contextmanager
    def open(self) -> Iterator[SourceView]:
        view = SourceView(self._no_entries, on_change="fail")
        view.stream = lambda: self._stream(view)
        yield view

    def _no_entries(self) -> Iterator[ScannedEntry]:
        raise SourceError(
            f"{self.path} can only be read as a stream; a cluster cannot be watched for changes"
        )

    def _program(self, cluster: Cluster) -> str:
        programs = self._programs or find_programs(cluster.major, folder=self._programs_folder)
        if programs.major < cluster.major:
            raise SourceError(
                f"pg_basebackup is {programs.version} and cannot read {self.path}, whose server is PostgreSQL"
                f" {cluster.version}; install PostgreSQL's client programs of version {cluster.major}"
                f" or newer (Debian, Ubuntu: postgresql-client-{cluster.major})"
            )
        return programs.path("pg_basebackup")

    def _stream(self, view: SourceView) -> Generator[StreamedEntry, None, None]:
        """Yield what pg_basebackup sends; at the end prove that it was all, and of one cluster.

        :raises DumpError: it was not complete
        :raises SourceError: it is not what can be backed up, or its pages are damaged
        """
        with connected(self.url) as connection:
            before = identify_on(connection)
            page_bytes, mode = layout_of(connection)
        require_no_tablespaces(self.url, before)
        proof = BaseProof(before, label=f"fastvlm-ops {uuid.uuid4().hex}")
        with self._wal_kept(view), self._pg_basebackup(before, proof.label) as child:
            read_into = self._reader(child, proof, view)
            yield from self._entries(read_into, proof, page_bytes, mode)
        after = identify(self.url)
        try:
            view.evidence = {"postgresql": proof.evidence(after)}
        except SourceError as error:
            raise type(error)(f"the base of {self.path} is not whole: {error}") from None

    def _entries(
        self, read_into: ReadInto, proof: BaseProof, page_bytes: int, mode: int
    ) -> Iterator[StreamedEntry]:
        archive = TarStream(read_into, str(self.path))
        root: Entry | None = None
        for member in archive.members():
            if root is None:  # an archive has no entry of the folder itself; its owner is that of the rest
                root = Entry(
                    path=b".",
                    type="directory",
                    mode=mode,
                    uid=member.uid,
                    gid=member.gid,
                    mtime_ns=time.time_ns(),
                    user=member.user,
                    group=member.group,
                )
                yield StreamedEntry(root)
            entry = _entry(member)
            if member.is_directory:
                yield StreamedEntry(entry)
                continue
            in_pages = member.name.startswith((b"base/", b"global/")) and not member.size_bytes % page_bytes
            contents = proof.watch(member, archive.read_into)
            yield StreamedEntry(entry, contents, page_bytes if in_pages else None)

    def _reader(self, child: ProgramStream, proof: BaseProof, view: SourceView) -> ReadInto:
        """Return what reads the program's output, and at the end of it looks how the program ended."""

        def read_into(buffer: memoryview) -> int:
            try:
                count = child.read_into(buffer)
                if not count:
                    view.warnings += _lines(child.finish())
            except ProgramError as error:
                self._judge(error, proof, view)
                return 0
            return count

        return read_into

    @contextlib.contextmanager
    def _pg_basebackup(self, cluster: Cluster, label: str) -> Iterator[ProgramStream]:
        arguments = [
            self._program(cluster),
            "--pgdata=-",
            "--format=tar",
            "--wal-method=fetch",
            "--checkpoint=fast",
            "--no-password",
            "--manifest-checksums=SHA256",
            f"--label={label}",
        ]
        environment = {**libpq_environment(self.url), "LC_ALL": "C"}
        secrets = [self.url.password] if isinstance(self.url.password, str) else []
        try:
            with stream(
                arguments,
                name="pg_basebackup",
                environment=environment,
                idle_seconds=self._idle_seconds,
                secrets=secrets,
            ) as child:
                yield child
        except ProgramError as error:
            raise DumpError(f"{self.path} cannot be backed up: {error}{_tail(error.output)}") from None

    def _judge(self, error: ProgramError, proof: BaseProof, view: SourceView) -> None:
        """Tell what it means that the program failed; return where the backup is whole all the same.

        :raises DumpError: it is not whole
        :raises SourceError: all was sent, but pages of it fail their checksums
        """
        if _DAMAGED not in error.output or not proof.complete:
            raise DumpError(f"{self.path} cannot be backed up: {error}{_tail(error.output)}") from None
        pages = [line for line in _lines(error.output) if _DAMAGED_PAGE in line]
        what = f"pages of {self.path} fail their checksums: {'; '.join(pages) or _DAMAGED}"
        if self._on_damaged_pages == "fail":
            raise SourceError(
                f"{what}. The cluster itself is damaged, and this backup would take the place of one that may"
                " still have these pages whole: restore from the last one, or set on_damaged_pages: warn"
            )
        view.warnings.append(f"{what}; they were stored as they are (on_damaged_pages: warn)")

    @contextlib.contextmanager
    def _wal_kept(self, view: SourceView) -> Iterator[None]:
        """Keep the server from removing WAL that the base needs, by a slot that goes with its connection."""
        import psycopg

        with connected(self.url, replication=True, seconds=None) as connection:
            try:
                connection.execute(
                    f"CREATE_REPLICATION_SLOT fastvlm_ops_base_{uuid.uuid4().hex[:12]} TEMPORARY PHYSICAL"
                    " RESERVE_WAL"
                )
            except psycopg.Error as error:
                view.warnings.append(
                    f"no replication slot could be made ({describe(error, self.url)}): the backup fails when"
                    " the server removes WAL before it is read. Raise max_replication_slots, or wal_keep_size"
                )
            yield


def _entry(member: Member) -> Entry:
    return Entry(
        path=member.name,
        type="directory" if member.is_directory else "file",
        mode=member.mode,
        uid=member.uid,
        gid=member.gid,
        mtime_ns=member.mtime_ns,
        user=member.user,
        group=member.group,
        size=member.size_bytes,
    )


def _lines(output: str) -> list[str]:
    return [line.strip() for line in output.splitlines() if line.strip()]


def _tail(output: str) -> str:
    """The end of what a program said, below the message; nothing where it said nothing."""
    lines = _lines(output)[-_ERROR_LINES:]
    return ":\n" + "\n".join(lines) if lines else ""
