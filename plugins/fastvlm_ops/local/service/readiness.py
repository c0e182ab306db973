"""Whether a replica can do its work: checked all the time by a thread, so that asking never waits."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from fastvlm_ops.local.service.configuration import ConfigurationKeeper
from fastvlm_ops.local.service.database import Database, DatabaseError
from fastvlm_ops.local.service.model import Model, ModelError, load_model, store_signature

_FILES_SECONDS = 0.2
_DATABASE_GOOD_SECONDS = 0.5
_DATABASE_BAD_SECONDS = 0.1
#: A commit that has not come back for so long is one that does not.
_DATABASE_PATIENCE_SECONDS = 3.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Served:
    """The model that is served.

    :param model: None where it may not be served
    :param problem: why
    """

    model: Model | None
    problem: str | None


class Readiness:
    """Keeps an eye on the files and on the database.

    :param store: the model store
    :param keeper: of the configuration
    :param database: that records are kept in
    """

    def __init__(self, store: Path, keeper: ConfigurationKeeper, database: Database) -> None:
        self._store = store
        self._keeper = keeper
        self._database = database
        self._loaded_from: object = None
        self._database_good: float | None = None
        self._database_problem: str | None = "it was not asked yet"
        self.served = Served(None, "it was not loaded yet")

    def start(self) -> None:
        """Check once what files there are, then begin."""
        self._check_files()
        for check in (self._watch_files, self._watch_database):
            threading.Thread(target=check, name=check.__name__.strip("_"), daemon=True).start()

    def reasons(self) -> list[str]:
        """Return why it is not ready; empty when it is."""
        found = []
        if self._keeper.current.configuration is None:
            found.append(f"configuration: {self._keeper.current.problem}, and there is no earlier one")
        if problem := self.served.problem:
            found.append(f"model: {problem}")
        if problem := self.database_problem():
            found.append(f"database: {problem}")
        return found

    def database_problem(self) -> str | None:
        """Return why nothing can be written to the database; None where it can."""
        good, problem = self._database_good, self._database_problem
        if problem is not None:
            return problem
        silent = time.monotonic() - (good or 0)
        if silent > _DATABASE_PATIENCE_SECONDS:
            return f"a commit has not come back for {silent:.1f} s"
        return None

    def _watch_files(self) -> None:
        while True:
            time.sleep(_FILES_SECONDS)
            try:
                self._check_files()
            except Exception:
                log.exception("the files could not be checked")

    def _check_files(self) -> None:
        before = self._keeper.current.problem
        self._keeper.refresh()
        if (now := self._keeper.current.problem) != before:
            log.warning("configuration", extra={"problem": now})
        configuration = self._keeper.current.configuration
        package = configuration.models.serve if configuration else None
        loaded_from = (package, store_signature(self._store))
        if loaded_from == self._loaded_from:
            return
        self.served = self._load(package)
        self._loaded_from = loaded_from
        log.warning("model", extra={"package": package, "problem": self.served.problem})

    def _load(self, package: str | None) -> Served:
        if package is None:
            return Served(None, "no configuration says which one")
        try:
            return Served(load_model(self._store, package), None)
        except ModelError as error:
            return Served(None, str(error))

    def _watch_database(self) -> None:
        prepared = False
        while True:
            began = time.monotonic()
            try:
                if not prepared:
                    self._database.prepare()
                    prepared = True
                self._database.check()
            except DatabaseError as error:
                self._note_database(str(error))
                time.sleep(_DATABASE_BAD_SECONDS)
            except Exception as error:
                log.exception("the database could not be checked")
                self._note_database(f"{type(error).__name__}")
                time.sleep(_DATABASE_BAD_SECONDS)
            else:
                self._database_good = began
                self._note_database(None)
                time.sleep(_DATABASE_GOOD_SECONDS)

    def _note_database(self, problem: str | None) -> None:
        if (problem is None) != (self._database_problem is None):
            log.warning("database", extra={"problem": problem})
        self._database_problem = problem
