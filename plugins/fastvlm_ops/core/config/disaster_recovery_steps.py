"""What a drill can break, watch, restore and check: the closed list of step types of a scenario."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from fastvlm_ops.core.config.reading import Definition

NAME_PATTERN = r"^[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?$"
PLACE_PATH_PATTERN = r"^[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*$"

Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]


def _check_inside(path: str) -> str:
    if any(part in {".", ".."} for part in path.split("/")):
        raise ValueError(f"{path!r} may not have '.' or '..' in it; expected a path inside the place")
    return path


#: A path inside one of the service's places.
InnerPath = Annotated[str, Field(pattern=PLACE_PATH_PATTERN), AfterValidator(_check_inside)]


class _Fault(Definition):
    time_to_live_seconds: Annotated[
        Seconds,
        Field(le=3600, description="after which the fault ends by itself, whatever became of the drill"),
    ]


class _InstanceFault(_Fault):
    instance: Annotated[
        Name | None, Field(description="name of the instance; null: one that is healthy, of the role")
    ] = None
    role: Annotated[
        Literal["replica", "database_primary", "database_standby"], Field(description="of the instance")
    ] = "replica"


class KillProcess(_InstanceFault):
    """An instance dies: SIGKILL, with all processes of its session."""

    fault: Literal["kill_process"]


class StopProcess(_InstanceFault):
    """An instance hangs: SIGSTOP, with all processes of its session."""

    fault: Literal["stop_process"]


class RestartProcess(_InstanceFault):
    """An instance is restarted."""

    fault: Literal["restart_process"]


class DisturbLink(_Fault):
    """A TCP link of the service is slow, broken, silent or closed."""

    fault: Literal["disturb_link"]
    link: Annotated[Name, Field(description="name of the link, as the service lists it")]
    disturbance: Annotated[
        Literal["latency", "reset", "black_hole", "refuse"], Field(description="what happens on it")
    ]
    latency_ms: Annotated[int, Field(ge=0, le=60_000, description="for latency: how much is added")] = 0


class _PlaceFault(_Fault):
    place: Annotated[Name, Field(description="place of the service, as it lists it")]


class FillDisk(_PlaceFault):
    """The disk of a place is full. The place has to be a small file system of its own."""

    fault: Literal["fill_disk"]


class MakeReadOnly(_PlaceFault):
    """Nothing can be written in a place any more. It has to be a file system of its own."""

    fault: Literal["make_read_only"]


class CorruptFile(_PlaceFault):
    """Bytes of a file change; its size and times stay."""

    fault: Literal["corrupt_file"]
    path: Annotated[InnerPath, Field(description="of the file, inside the place")]
    bytes: Annotated[int, Field(ge=1, le=1 << 20, description="how many bytes change")] = 1


class TruncateFile(_PlaceFault):
    """A file loses its second half."""

    fault: Literal["truncate_file"]
    path: Annotated[InnerPath, Field(description="of the file, inside the place")]


class DeletePath(_PlaceFault):
    """A file or folder, or all that is in the place, is gone."""

    fault: Literal["delete_path"]
    path: Annotated[InnerPath | None, Field(description="inside the place; null: all that is in it")] = None


class StopContainer(_InstanceFault):
    """A container is stopped, as `docker stop` does."""

    fault: Literal["stop_container"]


class KillContainer(_InstanceFault):
    """A container is killed, as `docker kill` does."""

    fault: Literal["kill_container"]


FaultStep = Annotated[
    KillProcess
    | StopProcess
    | RestartProcess
    | DisturbLink
    | FillDisk
    | MakeReadOnly
    | CorruptFile
    | TruncateFile
    | DeletePath
    | StopContainer
    | KillContainer,
    Field(discriminator="fault"),
]


class HttpProbe(Definition):
    """A request to the service that must be answered as expected."""

    probe: Literal["http"]
    path: Annotated[str, Field(pattern=r"^/[A-Za-z0-9_./?=&-]{0,200}$", description="as in /readyz")]
    status: Annotated[int, Field(ge=100, le=599, description="of the answer")] = 200
    within_ms: Annotated[int, Field(ge=1, le=60_000, description="for the whole answer")] = 1000


class InstancesProbe(Definition):
    """So many instances of a role are healthy."""

    probe: Literal["instances"]
    role: Annotated[
        Literal["replica", "proxy", "database_primary", "database_standby"], Field(description="their role")
    ]
    healthy: Annotated[int, Field(ge=1, le=1000, description="how many at least")]


class CanaryProbe(Definition):
    """What the canary has written can be read back."""

    probe: Literal["canary"]


Probe = Annotated[HttpProbe | InstancesProbe | CanaryProbe, Field(discriminator="probe")]


class AbortCondition(Definition):
    """When a drill is broken off: a probe that fails for so long."""

    failing: Annotated[Probe, Field(description="the probe")]
    for_seconds: Annotated[Seconds, Field(description="how long it fails before the drill is broken off")]


class _Check(Definition):
    within_seconds: Annotated[Seconds, Field(le=3600, description="it has to hold by then")] = 30


class FaultVisible(_Check):
    """The fault is there, as the target itself shows: without it, a drill proves nothing."""

    check: Literal["fault_visible"]


class RequestsSucceed(_Check):
    """Users' requests are answered rightly, several in a row."""

    check: Literal["requests_succeed"]
    consecutive: Annotated[int, Field(ge=1, le=100, description="how many in a row")] = 3


class InstanceOutOfRotation(_Check):
    """The proxy sends nothing to the instance that was hit."""

    check: Literal["instance_out_of_rotation"]


class StandbyPromoted(_Check):
    """A standby database is the primary now, and takes writes; the drill promotes it if nothing else does."""

    check: Literal["standby_promoted"]


class ServiceSays(_Check):
    """The service answers a request in a certain way, as with 503 while a model is missing."""

    check: Literal["service_says"]
    path: Annotated[str, Field(pattern=r"^/[A-Za-z0-9_./?=&-]{0,200}$", description="as in /readyz")]
    status: Annotated[int, Field(ge=100, le=599, description="of the answer")]


class BackupFails(_Check):
    """A backup made now fails, in bounded time, with a message that names the storage."""

    check: Literal["backup_fails"]


FailoverCheck = Annotated[
    FaultVisible | RequestsSucceed | InstanceOutOfRotation | StandbyPromoted | ServiceSays | BackupFails,
    Field(discriminator="check"),
]


class _Action(Definition):
    within_seconds: Annotated[Seconds, Field(description="it has to be done by then")] = 60


class WaitForInstance(_Action):
    """Whatever supervises the service brings the instance back; the drill only waits."""

    action: Literal["wait_for_instance"]


class RestartInstance(_Action):
    """The instance that was hit is restarted."""

    action: Literal["restart_instance"]


class ReleaseFault(_Action):
    """The fault is taken back: what recovers is what should recover by itself then."""

    action: Literal["release_fault"]


class RejoinDatabase(_Action):
    """The old primary becomes a standby of the new one."""

    action: Literal["rejoin_database"]


class RestoreBackup(_Action):
    """A component is restored from the newest published backup into a place of the service."""

    action: Literal["restore_backup"]
    component: Annotated[str, Field(min_length=1, max_length=200, description="as in components.yaml")]
    place: Annotated[Name, Field(description="place of the service that it is restored into")]


class RestoreToScratch(_Action):
    """Every component of the newest published full backup is restored into a folder of its own."""

    action: Literal["restore_to_scratch"]


class RunBackup(_Action):
    """A backup of a place is made, once the fault is gone."""

    action: Literal["run_backup"]
    place: Annotated[Name, Field(description="place of the service that is backed up")]


RestoreAction = Annotated[
    WaitForInstance
    | RestartInstance
    | ReleaseFault
    | RejoinDatabase
    | RestoreBackup
    | RestoreToScratch
    | RunBackup,
    Field(discriminator="action"),
]


class InstancesHealthy(_Check):
    """All instances that were healthy before are healthy again."""

    check: Literal["instances_healthy"]


class CanaryRowsEqual(_Check):
    """Every acknowledged write of the canary is there, as it was written; what is missing is the RPO."""

    check: Literal["canary_rows_equal"]


class DatabasesEqual(_Check):
    """The standby streams, has replayed what the primary has, and both hold the same rows."""

    check: Literal["databases_equal"]


class PlaceEqualsBackup(_Check):
    """Every file of a place is, by hash, what the backup holds, and the place has no other."""

    check: Literal["place_equals_backup"]
    component: Annotated[str, Field(min_length=1, max_length=200, description="as in components.yaml")]
    place: Annotated[Name, Field(description="place of the service")]


class ComponentsSound(_Check):
    """What was restored to scratch is equal to the backup by hash, and can be used: packages, YAML and JSON
    are parsed, databases are started and checked.
    """

    check: Literal["components_sound"]
    only_compared: Annotated[
        tuple[str, ...],
        Field(
            strict=False,
            description="components whose files are compared by hash but not parsed, as what users have sent,"
            " which may have been broken all along",
        ),
    ] = ()


class BackupsRestore(_Check):
    """The newest backup of before, and the one that was made in the drill, restore."""

    check: Literal["backups_restore"]


RecoveryCheck = Annotated[
    RequestsSucceed
    | InstancesHealthy
    | CanaryRowsEqual
    | DatabasesEqual
    | PlaceEqualsBackup
    | ComponentsSound
    | BackupsRestore
    | ServiceSays,
    Field(discriminator="check"),
]
