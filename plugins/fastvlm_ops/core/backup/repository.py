"""Creating and opening a repository: configuration, keys, log."""

from __future__ import annotations

import copy
import importlib
import uuid
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from fastvlm_ops.core.backup.commit_log import CommitLog, LogState
from fastvlm_ops.core.backup.errors import (
    CorruptionError,
    ObjectNotFoundError,
    RepositoryNotFoundError,
    UnsafeEndpointError,
)
from fastvlm_ops.core.backup.key_epochs import open_ring
from fastvlm_ops.core.backup.keys import KeyRing, Secrets, secrets_of, write_slot
from fastvlm_ops.core.backup.memory import require_memory
from fastvlm_ops.core.backup.probing import IGNORED, probe_conditional_writes
from fastvlm_ops.core.backup.sealing import FORMAT, peek_line, seal, sign_line, unseal, verify_line
from fastvlm_ops.core.backup.storage import ObjectInfo, S3Storage
from fastvlm_ops.core.importing import large_imports

if TYPE_CHECKING:
    from fastvlm_ops.core.backup.chunking import ContentChunker
    from fastvlm_ops.core.backup.index import ChunkIndex

CONFIG_NAME = "config.json"
_CONFIG_LIMIT_BYTES = 1 << 20
_READERS = 4
_LISTED = ("index/", "packs/")
_INDEX_ATTEMPTS = 3
# What reads and writes chunks: with NumPy, a quarter of the time it takes to import this package.
_OF_CHUNKS = ("fastvlm_ops.core.backup.reading", "fastvlm_ops.core.backup.chunking")


class Repository:
    """An opened repository. One per process and run; its log state is refreshed on demand."""

    def __init__(
        self,
        storage: S3Storage,
        ring: KeyRing,
        config_line: bytes,
        listings: dict[str, Callable[[], list[ObjectInfo]]] | None = None,
    ) -> None:
        self.storage = storage
        self.ring = ring
        self.config_line = config_line
        self.config = peek_line(config_line, CONFIG_NAME)
        self.repository_id: str = self.config["repository_id"]
        self.log = CommitLog(storage, ring)
        self._listings = listings or {}
        self._segments: dict[str, Future[bytes]] = {}  # beside the log's entries, the first time
        self._is_probed = False
        self._first_index: ChunkIndex | None = None

    def beside(self, count: int) -> list[Repository]:
        """The same repository ``count`` times, for work side by side: each has a log of its own.

        The log and the index are read once for all of them, as they are now.
        """
        state = self.refresh()
        index = self.load_index(lambda _: None)
        others = [Repository(self.storage, self.ring, self.config_line) for _ in range(count)]
        for other in others:
            other.log.state = copy.deepcopy(state)
            other._listings["log/"] = list  # nothing new
            other._is_probed, other._first_index = self._is_probed, index
        return others

    def __repr__(self) -> str:
        return f"Repository({self.storage}, id={self.repository_id})"

    def require_conditional_writes(self) -> None:
        """Probe the endpoint, once for this object: each run opens its own.

        It must refuse a conditional write to a name that exists. What would be written there is what is
        there already, so an endpoint that does not refuse changes nothing.

        :raises UnsafeEndpointError: it ignores conditional writes.
        """
        if not self._is_probed and self.storage.claim(CONFIG_NAME, self.config_line):
            raise UnsafeEndpointError(IGNORED.format(self.storage))
        self._is_probed = True

    def refresh(self) -> LogState:
        """The log as it stands now; the first time, as :func:`open_repository` listed it."""
        if "log/" not in self._listings and self.log.state.seq == 0:
            # It may begin at a checkpoint that is younger than those listings, and so not say which of the
            # names in them are gone.
            self._listings.clear()
            self._first_index = None
        if "index/" not in self._listings or self._segments:
            return self.log.refresh(self._listed("log/"))
        from fastvlm_ops.core.backup.index import read_segment

        with ThreadPoolExecutor(_READERS, thread_name_prefix="index") as pool:
            for name in [info.name for info in self._listings["index/"]()]:
                self._segments[name] = pool.submit(read_segment, self.storage, name)
            return self.log.refresh(self._listed("log/"))

    def _listed(self, prefix: str) -> list[ObjectInfo] | None:
        """What was listed when the repository was opened; good for one use."""
        listing = self._listings.pop(prefix, None)
        return None if listing is None else listing()

    def load_index(self, warn: Callable[[str], None]) -> ChunkIndex:
        """See :func:`~fastvlm_ops.core.backup.index.load_index`; the first time, what :meth:`beside` read."""
        from fastvlm_ops.core.backup.index import load_index

        index, self._first_index = self._first_index, None
        if index is not None:
            for problem in index.damaged.values():
                warn(problem)
            return index
        fetched, self._segments = self._segments, {}
        for _ in range(_INDEX_ATTEMPTS):
            loaded = load_index(
                self.storage,
                self.ring,
                self.repository_id,
                self.log.state,
                warn=warn,
                segments=self._listed("index/"),
                fetched=fetched,
                packs=self._listed("packs/"),
            )
            if not loaded.lost or not self._log_went_on():
                break  # else a collection may have moved it between the listings
        return loaded

    def _log_went_on(self) -> bool:
        seq = self.log.state.seq
        try:
            return self.log.refresh().seq != seq
        except CorruptionError:  # of an entry that whoever needs it will report
            return False

    def chunker(self, name: str) -> ContentChunker:
        """A chunker with this repository's parameters and seed: ``content`` or ``tree``."""
        from fastvlm_ops.core.backup.chunking import ChunkerParameters, ContentChunker

        parameters = ChunkerParameters(**self.config["chunkers"][name])
        return ContentChunker(parameters, self.ring.chunker_seed)

    def seal(self, kind: str, name: str, payload: bytes) -> bytes:
        return seal(self.ring, self.repository_id, kind, name, payload)

    def unseal(self, kind: str, name: str, data: bytes, *, limit_bytes: int) -> bytes:
        return unseal(self.ring, self.repository_id, kind, name, data, limit_bytes=limit_bytes)


def open_repository(storage: S3Storage, secret: Secrets, *, chunks: bool = False) -> Repository:
    """Open the repository at this bucket and prefix.

    :param secret: a passphrase, or the contents of a key file; of several, tried in order, one has to fit
    :param chunks: they will be read or written, so that log, index and packs will be asked for: they are
        listed, by names and sizes only, and what works on chunks is imported, while the key is derived from
        the secret.
    :raises RepositoryNotFoundError: there is none.
    :raises WrongKeyError: before anything else is read.
    :raises CorruptionError: its configuration is damaged or of another format.
    :raises MemoryLimitError: chunks are wanted, and this process may not have the memory for them.
    """
    if chunks:
        require_memory()
    try:
        data = storage.get(CONFIG_NAME, limit_bytes=_CONFIG_LIMIT_BYTES)
    except ObjectNotFoundError as error:
        raise RepositoryNotFoundError(f"there is no backup repository at {storage}") from error
    name = f"{storage}{CONFIG_NAME}"
    config = peek_line(data, name)
    if config.get("format") != FORMAT:
        raise CorruptionError(f"{name}: format {config.get('format')!r}; this version reads format {FORMAT}")
    listings: dict[str, Callable[[], list[ObjectInfo]]] = {}
    with ThreadPoolExecutor(len(_LISTED) + 2, thread_name_prefix="list") as pool:
        if chunks:
            listings = _list_in_order(storage, pool)
            pool.submit(_import_what_works_on_chunks)
        ring = open_ring(storage, str(config.get("repository_id")), secret)
    verify_line(data, ring.log_key, name)
    return Repository(storage, ring, data, listings)


def _import_what_works_on_chunks() -> None:
    with large_imports():
        for name in _OF_CHUNKS:
            importlib.import_module(name)


def _list_in_order(storage: S3Storage, pool: ThreadPoolExecutor) -> dict[str, Callable[[], list[ObjectInfo]]]:
    """List the log, then packs and index segments side by side.

    Names that were swept leave the log's state, and a reader may begin at a checkpoint that lacks them. So
    what is listed must be what there was after such a checkpoint was: it was written after they had been
    deleted.
    """

    def listed(below: str, after: Future[list[ObjectInfo]] | None = None) -> list[ObjectInfo]:
        if after is not None:
            after.result()
        return list(storage.list(below))

    log = pool.submit(listed, "log/")
    return {"log/": log.result, **{below: pool.submit(listed, below, log).result for below in _LISTED}}


def initialise_repository(storage: S3Storage, secret: Secrets) -> Repository:
    """Create a repository, or open the one that is there. Two at once end in the same one.

    The key slots go first, below the id they belong to; ``config.json``, claimed, decides whose id counts.

    :param secret: what opens it from now on: each of several by itself
    :raises UnsafeEndpointError: the endpoint ignores conditional writes.
    """
    try:
        return open_repository(storage, secret)
    except RepositoryNotFoundError:
        probe_conditional_writes(storage)
    from fastvlm_ops.core.backup.chunking import CONTENT_PARAMETERS, TREE_PARAMETERS

    ring = KeyRing.generate()
    repository_id = uuid.uuid4().hex
    for each in secrets_of(secret):
        write_slot(storage, repository_id, ring, each)
    config = {
        "format": FORMAT,
        "repository_id": repository_id,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "chunkers": {"content": asdict(CONTENT_PARAMETERS), "tree": asdict(TREE_PARAMETERS)},
    }
    storage.claim(CONFIG_NAME, sign_line(config, ring.log_key))
    return open_repository(storage, secret)
