"""``include/components.yaml``: what is backed up."""

from __future__ import annotations

import re
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator

from fastvlm_ops.core.config.backup_costs import Prices, StorageClasses
from fastvlm_ops.core.config.backup_policy import ObjectLock, Pruning, Retention
from fastvlm_ops.core.config.backup_replica import Replica
from fastvlm_ops.core.config.checking import CONNECTION_PATTERN, check_connection, check_path
from fastvlm_ops.core.config.errors import DefinitionError, Problem
from fastvlm_ops.core.config.reading import Definition, DefinitionFile, read_definition_file

COMPONENTS_FILE = "components.yaml"
NAME_PATTERN = r"^[a-z][a-z0-9_]{0,39}$"
SLOT_PATTERN = r"^[a-z0-9_]{1,63}$"


def _check_name(name: str) -> str:
    if not re.match(NAME_PATTERN, name):
        raise ValueError(
            f"{name!r} cannot be a name; expected a lower-case letter, then at most 39 lower-case letters,"
            " digits and underscores"
        )
    return name


def _check_patterns(patterns: tuple[str, ...]) -> tuple[str, ...]:
    for pattern, times in Counter(patterns).items():
        if not pattern.strip():
            raise ValueError("an empty pattern excludes nothing; remove it")
        if times > 1:
            raise ValueError(f"the pattern {pattern!r} stands {times} times")
    return patterns


def _check_queries(queries: tuple[str, ...]) -> tuple[str, ...]:
    for query in queries:
        if not query.strip() or "\0" in query:
            raise ValueError(f"{query!r} is no query; expected one, as in SELECT 1")
    return queries


class _ComponentBase(Definition):
    name: Annotated[
        str,
        AfterValidator(_check_name),
        Field(
            description="unique name of the component: lower-case letters, digits and underscores",
            json_schema_extra={"pattern": NAME_PATTERN},
        ),
    ]
    description: Annotated[str, Field(description="what it is, for the people who restore it")] = ""
    newest_backup_max_age_hours: Annotated[
        float,
        Field(
            gt=0,
            le=8784,
            allow_inf_nan=False,
            description="how old its newest backup may be, in hours, above 0 to 8784 (a year), before"
            " backup_deadline fails",
        ),
    ] = 26


class _PathComponent(_ComponentBase):
    path: Annotated[
        str,
        AfterValidator(check_path),
        Field(
            description="where it is: an absolute path, or one below [fastvlm_ops] kit_dir",
            json_schema_extra={"minLength": 1},
        ),
    ]


class FilesComponent(_PathComponent):
    """A folder with everything in it."""

    kind: Literal["files"] = Field(description="files: a folder with everything in it")
    exclude: Annotated[
        tuple[str, ...],
        AfterValidator(_check_patterns),
        # Strictness would ask YAML, which has only lists, for a tuple.
        Field(strict=False, description="patterns of what is left out, as in *.tmp"),
    ] = ()
    on_change: Annotated[
        Literal["warn", "fail"],
        Field(
            description="when a file changes each time it is read, or vanishes: warn stores what was read and"
            " says so, fail ends the backup"
        ),
    ] = "warn"
    watch: Annotated[
        bool, Field(description="true for the one component that is backed up within a minute of a change")
    ] = False


class SQLiteComponent(_PathComponent):
    """One SQLite database, copied through SQLite while others use it."""

    kind: Literal["sqlite"] = Field(description="sqlite: one database file, in use or not")


class PostgreSQLComponent(_ComponentBase):
    """A cluster of PostgreSQL: base backups, and the write-ahead log between them."""

    kind: Literal["postgresql"] = Field(description="postgresql: a whole cluster, as pg_basebackup reads it")
    connection: Annotated[
        str,
        AfterValidator(check_connection),
        Field(
            description="id of the connection to the cluster, of type postgres; its user needs REPLICATION",
            json_schema_extra={"pattern": CONNECTION_PATTERN},
        ),
    ] = "fastvlm_postgres"
    slot: Annotated[
        str | None,
        Field(
            pattern=SLOT_PATTERN,
            description="replication slot of the process that receives WAL (fastvlm-ops receive-wal); without"
            " one only the base backups themselves can be restored",
        ),
    ] = None
    wal_max_lag_seconds: Annotated[
        int,
        Field(
            ge=10,
            le=604_800,
            description="how far the stored WAL may be behind, in seconds, 10 to 604800 (a week), before"
            " backup_wal fails",
        ),
    ] = 600
    switch_wal_after_seconds: Annotated[
        int,
        Field(
            ge=10,
            le=86_400,
            description="after how many seconds, 10 to 86400 (a day), the server is asked to finish a segment"
            " that has begun",
        ),
    ] = 300
    checks: Annotated[
        tuple[str, ...],
        AfterValidator(_check_queries),
        Field(strict=False, description="queries that must succeed on a restored copy, as in SELECT 1"),
    ] = ()
    on_damaged_pages: Annotated[
        Literal["fail", "warn"],
        Field(
            description="when pages of the cluster fail their checksums: fail ends the backup, so that no"
            " damaged one takes the place of a good one; warn stores what was read and says so"
        ),
    ] = "fail"


class _AirflowComponent(_ComponentBase):
    connection: Annotated[
        str,
        AfterValidator(check_connection),
        Field(
            description="id of the connection to Airflow's own database, of type postgres or sqlite",
            json_schema_extra={"pattern": CONNECTION_PATTERN},
        ),
    ] = "fastvlm_airflow_db"


class AirflowDatabaseComponent(_AirflowComponent):
    """Airflow's own database: SQLite through SQLite, PostgreSQL by pg_dump."""

    kind: Literal["airflow_database"] = Field(
        description="airflow_database: all of Airflow's own database, SQLite or PostgreSQL"
    )


class AirflowObjectsComponent(_AirflowComponent):
    """Connections, variables and pools of Airflow's own database, as Airflow exports them: with secrets."""

    kind: Literal["airflow_objects"] = Field(
        description="airflow_objects: Airflow's connections, variables and pools, decrypted, as JSON"
    )


AnyComponent = (
    FilesComponent
    | SQLiteComponent
    | PostgreSQLComponent
    | AirflowDatabaseComponent
    | AirflowObjectsComponent
)
Component = Annotated[AnyComponent, Field(discriminator="kind")]


class Components(DefinitionFile):
    """What is backed up: each component on its own, all of them tied together into a backup set."""

    version: Literal[1] = Field(description="version of this file's format: 1")
    components: Annotated[
        tuple[Component, ...],
        Field(
            strict=False,
            min_length=1,
            description="at least one component; a backup of nothing would succeed and protect nothing",
        ),
    ]

    retention: Annotated[
        Retention,
        Field(description="which backups backup_maintenance keeps: keys keep_last to keep_yearly"),
    ] = Retention()
    pruning: Annotated[
        Pruning,
        Field(description="how backup_maintenance removes the others: keys enabled, max_share and others"),
    ] = Pruning()
    object_lock: Annotated[
        ObjectLock | None,
        Field(
            description="keys mode and days: what is stored cannot be removed for so long, and as long as"
            " backups need it; needs a bucket that was made with Object Lock. Choose at least 14 days:"
            " maintenance renews once a week what has less than half left. Without it, nothing is locked"
        ),
    ] = None
    replica: Annotated[
        Replica,
        Field(description="the second place of the backups: keys connection, shares, mirror_removals"),
    ] = Replica()
    storage_classes: Annotated[
        StorageClasses | None,
        Field(description="key packs: the classes that packs move to as they age. Without it, they stay"),
    ] = None
    prices: Annotated[
        Prices | None,
        Field(
            description="what the provider charges: keys currency, as_of, gb_month, requests_per_1000,"
            " out_gb. Without it, costs are unknown"
        ),
    ] = None

    @field_validator("components")
    @classmethod
    def _at_most_one_is_watched(cls, components: tuple[Component, ...]) -> tuple[Component, ...]:
        watched = [f"components[{n}]" for n, component in enumerate(components) if _is_watched(component)]
        if len(watched) > 1:
            raise ValueError(f"{' and '.join(watched)} have watch: true; expected at most one")
        return components

    @field_validator("components")
    @classmethod
    def _names_are_unique(cls, components: tuple[Component, ...]) -> tuple[Component, ...]:
        positions: dict[str, int] = {}
        for position, component in enumerate(components):
            first = positions.setdefault(component.name, position)
            if first != position:
                raise ValueError(
                    f"components[{first}] and components[{position}] are both named {component.name!r};"
                    " expected unique names"
                )
        return components

    @property
    def names(self) -> list[str]:
        """Names of the components, in the file's order."""
        return [component.name for component in self.components]

    @property
    def watched(self) -> str | None:
        """Name of the component that is backed up when it changes; None where there is none."""
        return next((component.name for component in self.components if _is_watched(component)), None)

    @property
    def objectives(self) -> dict[str, timedelta]:
        """How old the newest backup of each component may be, by name, in the file's order."""
        return {
            component.name: timedelta(hours=component.newest_backup_max_age_hours)
            for component in self.components
        }

    def component(self, name: str) -> AnyComponent:
        """Return one component.

        :param name: its name
        :raises DefinitionError: the file has none of that name
        """
        for component in self.components:
            if component.name == name:
                return component
        message = f"has no component named {name!r}; it has {', '.join(self.names)}"
        raise DefinitionError(self.file, [Problem("components", message)])

    def path_of(self, name: str, kit_dir: Path | None) -> Path:
        """Return the absolute path of a component.

        :param name: the component's name
        :param kit_dir: what relative paths start from; None where it is not set
        :raises DefinitionError: there is no such component, it has no path, or a relative one needs kit_dir
        """
        component = self.component(name)
        if not isinstance(component, _PathComponent):
            message = f"{name!r} is of kind {component.kind}, which has no path"
            raise DefinitionError(self.file, [Problem("components", message)])
        path = Path(component.path)
        if path.is_absolute():
            return path
        if kit_dir is None:
            key = f"components[{self.names.index(name)}].path"
            message = (
                f"{component.path!r} is relative, but [fastvlm_ops] kit_dir is not set; set it,"
                " or write an absolute path"
            )
            raise DefinitionError(self.file, [Problem(key, message)])
        return kit_dir / path


def _is_watched(component: AnyComponent) -> bool:
    return isinstance(component, FilesComponent) and component.watch


def load_components(include_dir: Path) -> Components:
    """Read ``components.yaml``.

    :param include_dir: the folder that it is in
    :raises DefinitionError: it cannot be used; the message names file, line, key and what would be right
    """
    return read_definition_file(include_dir / COMPONENTS_FILE, Components)


def load_watched_components(include_dir: Path) -> Components:
    """Read ``components.yaml``, which must have a component that is backed up when it changes.

    :param include_dir: the folder that it is in
    :raises DefinitionError: it cannot be used, or no component has ``watch: true``
    """
    components = load_components(include_dir)
    if components.watched is None:
        message = "none has watch: true; set it for the component that is to be backed up when it changes"
        raise DefinitionError(components.file, [Problem("components", message)])
    return components
