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

    fault: Annotated[Literal["kill_process"], Field(description="what is broken")]


class StopProcess(_InstanceFault):
    """An instance hangs: SIGSTOP, with all processes of its session."""

    fault: Annotated[Literal["stop_process"], Field(description="what is broken")]


class RestartProcess(_InstanceFault):
    """An instance is restarted."""

    fault: Annotated[Literal["restart_process"], Field(description="what is broken")]


class DisturbLink(_Fault):
    """A TCP link of the service is slow, broken, silent or closed."""

    fault: Annotated[Literal["disturb_link"], Field(description="what is broken")]
    link: Annotated[Name, Field(description="name of the link, as the service lists it")]
    disturbance: Annotated[
        Literal["latency", "reset", "black_hole", "refuse"], Field(description="what happens on it")
    ]
    latency_ms: Annotated[int, Field(ge=0, le=60_000, description="for latency: how much is added")] = 0


class _PlaceFault(_Fault):
    place: Annotated[Name, Field(description="place of the service, as it lists it")]


class FillDisk(_PlaceFault):
    """The disk of a place is full. The place has to be a small file system of its own."""

    fault: Annotated[Literal["fill_disk"], Field(description="what is broken")]


class MakeReadOnly(_PlaceFault):
    """Nothing can be written in a place any more. It has to be a file system of its own."""

    fault: Annotated[Literal["make_read_only"], Field(description="what is broken")]


class CorruptFile(_PlaceFault):
    """Bytes of a file change; its size and times stay."""

    fault: Annotated[Literal["corrupt_file"], Field(description="what is broken")]
    path: Annotated[InnerPath, Field(description="of the file, inside the place")]
    bytes: Annotated[int, Field(ge=1, le=1 << 20, description="how many bytes change")] = 1


class TruncateFile(_PlaceFault):
    """A file loses its second half."""

    fault: Annotated[Literal["truncate_file"], Field(description="what is broken")]
    path: Annotated[InnerPath, Field(description="of the file, inside the place")]


class DeletePath(_PlaceFault):
    """A file or folder, or all that is in the place, is gone."""

    fault: Annotated[Literal["delete_path"], Field(description="what is broken")]
    path: Annotated[InnerPath | None, Field(description="inside the place; null: all that is in it")] = None


class StopContainer(_InstanceFault):
    """A container is stopped, as `docker stop` does."""

    fault: Annotated[Literal["stop_container"], Field(description="what is broken")]


class KillContainer(_InstanceFault):
    """A container is killed, as `docker kill` does."""

    fault: Annotated[Literal["kill_container"], Field(description="what is broken")]


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

    probe: Annotated[Literal["http"], Field(description="what is looked at")]
    path: Annotated[str, Field(pattern=r"^/[A-Za-z0-9_./?=&-]{0,200}$", description="as in /readyz")]
    status: Annotated[int, Field(ge=100, le=599, description="of the answer")] = 200
    within_ms: Annotated[int, Field(ge=1, le=60_000, description="for the whole answer")] = 1000


class InstancesProbe(Definition):
    """So many instances of a role are healthy."""

    probe: Annotated[Literal["instances"], Field(description="what is looked at")]
    role: Annotated[
        Literal["replica", "proxy", "database_primary", "database_standby"], Field(description="their role")
    ]
    healthy: Annotated[int, Field(ge=1, le=1000, description="how many at least")]


class CanaryProbe(Definition):
    """What the canary has written can be read back."""

    probe: Annotated[Literal["canary"], Field(description="what is looked at")]


Probe = Annotated[HttpProbe | InstancesProbe | CanaryProbe, Field(discriminator="probe")]


class AbortCondition(Definition):
    """When a drill is broken off: a probe that fails for so long."""

    failing: Annotated[Probe, Field(description="the probe")]
    for_seconds: Annotated[Seconds, Field(description="how long it fails before the drill is broken off")]


class _Check(Definition):
    within_seconds: Annotated[Seconds, Field(le=3600, description="it has to hold by then")] = 30


class FaultVisible(_Check):
    """The fault is there, as the target itself shows: without it, a drill proves nothing."""

    check: Annotated[Literal["fault_visible"], Field(description="what has to hold")]


class RequestsSucceed(_Check):
    """Users' requests are answered rightly, several in a row."""

    check: Annotated[Literal["requests_succeed"], Field(description="what has to hold")]
    consecutive: Annotated[int, Field(ge=1, le=100, description="how many in a row")] = 3


class InstanceOutOfRotation(_Check):
    """The proxy sends nothing to the instance that was hit."""

    check: Annotated[Literal["instance_out_of_rotation"], Field(description="what has to hold")]


class StandbyPromoted(_Check):
    """A standby database is the primary now, and takes writes; the drill promotes it if nothing else does."""

    check: Annotated[Literal["standby_promoted"], Field(description="what has to hold")]


class ServiceSays(_Check):
    """The service answers a request in a certain way, as with 503 while a model is missing."""

    check: Annotated[Literal["service_says"], Field(description="what has to hold")]
    path: Annotated[str, Field(pattern=r"^/[A-Za-z0-9_./?=&-]{0,200}$", description="as in /readyz")]
    status: Annotated[int, Field(ge=100, le=599, description="of the answer")]


class BackupFails(_Check):
    """A backup made now fails, in bounded time, with a message that names the storage."""

    check: Annotated[Literal["backup_fails"], Field(description="what has to hold")]


FailoverCheck = Annotated[
    FaultVisible | RequestsSucceed | InstanceOutOfRotation | StandbyPromoted | ServiceSays | BackupFails,
    Field(discriminator="check"),
]


class _Action(Definition):
    within_seconds: Annotated[Seconds, Field(description="it has to be done by then")] = 60


class WaitForInstance(_Action):
    """Whatever supervises the service brings the instance back; the drill only waits."""

    action: Annotated[Literal["wait_for_instance"], Field(description="what is done")]


class RestartInstance(_Action):
    """The instance that was hit is restarted."""

    action: Annotated[Literal["restart_instance"], Field(description="what is done")]


class ReleaseFault(_Action):
    """The fault is taken back: what recovers is what should recover by itself then."""

    action: Annotated[Literal["release_fault"], Field(description="what is done")]


class RejoinDatabase(_Action):
    """The old primary becomes a standby of the new one."""

    action: Annotated[Literal["rejoin_database"], Field(description="what is done")]


class RestoreBackup(_Action):
    """A component is restored from the newest published backup into a place of the service."""

    action: Annotated[Literal["restore_backup"], Field(description="what is done")]
    component: Annotated[str, Field(min_length=1, max_length=200, description="as in components.yaml")]
    place: Annotated[Name, Field(description="place of the service that it is restored into")]


class RestoreToScratch(_Action):
    """Every component of the newest published full backup is restored into a folder of its own."""

    action: Annotated[Literal["restore_to_scratch"], Field(description="what is done")]


class RunBackup(_Action):
    """A backup of a place is made, once the fault is gone."""

    action: Annotated[Literal["run_backup"], Field(description="what is done")]
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

    check: Annotated[Literal["instances_healthy"], Field(description="what has to hold")]


class CanaryRowsEqual(_Check):
    """Every acknowledged write of the canary is there, as it was written; what is missing is the RPO."""

    check: Annotated[Literal["canary_rows_equal"], Field(description="what has to hold")]


class DatabasesEqual(_Check):
    """The standby streams, has replayed what the primary has, and both hold the same rows."""

    check: Annotated[Literal["databases_equal"], Field(description="what has to hold")]


class PlaceEqualsBackup(_Check):
    """Every file of a place is, by hash, what the backup holds, and the place has no other."""

    check: Annotated[Literal["place_equals_backup"], Field(description="what has to hold")]
    component: Annotated[str, Field(min_length=1, max_length=200, description="as in components.yaml")]
    place: Annotated[Name, Field(description="place of the service")]


class ComponentsSound(_Check):
    """What was restored to scratch is equal to the backup by hash, and can be used: packages, YAML and JSON
    are parsed, databases are started and checked.
    """

    check: Annotated[Literal["components_sound"], Field(description="what has to hold")]
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

    check: Annotated[Literal["backups_restore"], Field(description="what has to hold")]


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
