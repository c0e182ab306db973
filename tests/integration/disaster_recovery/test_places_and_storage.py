"""A place of a service that was damaged is restored and proven; a backup fails while S3 is gone."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from fastvlm_ops.core.backup import FolderSource, S3Storage, initialise_repository
from fastvlm_ops.core.disaster_recovery.fault_types import FileFault, LinkFault
from fastvlm_ops.core.services.instances import Marker, ServiceView
from fastvlm_ops.core.services.places import MARKER_FILE, write_place_marker
from fastvlm_ops.core.store import Store, open_store
from tests.restore_kit import PASSPHRASE, Drill, back_up
from tests.tcp_proxy import TcpProxy

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from fastvlm_ops.local.seaweedfs import SeaweedFS

pytestmark = pytest.mark.integration


class Service:
    """What the steps ask of a service: where its places and links are, and what it says it is."""

    address = "unix:/nowhere/control.sock"

    def __init__(self, places: dict[str, Path], environment: str = "demo") -> None:
        self.places = places
        self.marker = Marker(service="fastvlm-demo", environment=environment)
        self.links: dict[str, str] = {}

    def view(self) -> ServiceView:
        return ServiceView(
            marker=self.marker,
            instances=(),
            url="http://127.0.0.1:1",
            places={name: str(path) for name, path in self.places.items()},
            links=tuple(self.links),
            link_addresses=self.links,
        )


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(f"sqlite:///{tmp_path / 'operations.db'}", migrate_first=True) as opened:
        yield opened


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The place ``configuration`` of a service; it is a component of the backups, too."""
    folder = tmp_path / "places" / "configuration"
    folder.mkdir(parents=True)
    (folder / "service.yaml").write_text("model: TextDecoder-v1\n")
    (folder / "models.json").write_text('{"models": ["TextDecoder-v1"]}')
    write_place_marker(folder, Marker(service="fastvlm-demo", environment="demo"))
    return folder


@pytest.fixture
def drill(
    seaweedfs: SeaweedFS, s3_client: S3Client, bucket: str, tmp_path: Path, store: Store, place: Path
) -> Drill:
    """A published backup of the place, and a drill that is planned after it."""
    repository = initialise_repository(S3Storage(s3_client, bucket, "some/prefix"), PASSPHRASE)
    back_up(repository, {"configuration": FolderSource(place)}, "full-1")
    service: Any = Service({"configuration": place})
    fault = FileFault(how="corrupt", place=str(place), path="service.yaml", kept=str(tmp_path / "kept"))
    planned = datetime.now(UTC)
    return Drill(seaweedfs, bucket, tmp_path, store, control=service, fault=fault, planned_at=planned)


def equal(drill: Drill) -> dict[str, Any]:
    return drill.check("place_equals_backup", component="configuration", place="configuration")


def restore(drill: Drill) -> dict[str, Any]:
    return drill.act("restore_backup", component="configuration", place="configuration")


def test_a_damaged_place_is_restored_and_equal(drill: Drill, place: Path) -> None:
    assert equal(drill)["status"] == "passed"
    text = (place / "service.yaml").read_bytes()
    (place / "service.yaml").write_bytes(b"model: TextDecoder-v2\n")
    found = equal(drill)
    assert found["status"] == "failed"
    assert "service.yaml has other contents" in found["detail"]
    done = restore(drill)
    assert done["status"] == "passed", done["detail"]
    assert "1 were there already" in done["detail"] or "2 were there already" in done["detail"]
    assert (place / "service.yaml").read_bytes() == text
    found = equal(drill)
    assert found["status"] == "passed", found["detail"]
    assert "2 files" in found["detail"], "the marker is no part of it"
    assert sorted(path.name for path in place.parent.iterdir()) == ["configuration"], "no trace beside it"
    lines = (drill.own / "hashes" / "configuration.txt").read_text()
    assert "service.yaml" in lines


def test_all_of_a_place_comes_back(drill: Drill, place: Path) -> None:
    for path in place.iterdir():
        if path.name != MARKER_FILE:
            path.unlink()
    found = equal(drill)
    assert found["status"] == "failed"
    assert "models.json is missing" in found["detail"]
    assert restore(drill)["status"] == "passed"
    assert equal(drill)["status"] == "passed"


def test_what_the_drill_had_not_broken_is_kept_and_named(drill: Drill, place: Path) -> None:
    (place / "models.json").write_text('{"models": ["edited after the backup"]}')
    (place / "service.yaml").write_text("broken")
    done = restore(drill)
    assert done["status"] == "passed"
    assert "1 that the drill had not broken were replaced too" in done["detail"]
    assert done["evidence"]["replaced_besides"] == ["models.json"]
    (kept,) = place.parent.glob(".configuration.replaced-*")
    assert "edited after the backup" in (kept / "models.json").read_text()
    assert "edited after the backup" not in (place / "models.json").read_text()


def test_a_file_too_many_and_an_older_backup_are_found(drill: Drill, place: Path) -> None:
    older = (place / "service.yaml").read_bytes()
    (place / "service.yaml").write_text("model: TextDecoder-v3\n")
    back_up(drill.open(), {"configuration": FolderSource(place)}, "full-2")
    drill.planned_at = datetime.now(UTC)
    (place / "service.yaml").write_bytes(older)
    found = equal(drill)
    assert found["status"] == "failed"
    assert "It is what the other backup " in found["detail"]
    assert restore(drill)["status"] == "passed"
    assert (place / "service.yaml").read_text() == "model: TextDecoder-v3\n"
    (place / "left.tmp").touch()
    found = equal(drill)
    assert found["status"] == "failed"
    assert "left.tmp is not in the backup" in found["detail"]


def test_a_backup_of_what_is_broken_is_not_restored(drill: Drill, place: Path) -> None:
    drill.planned_at = datetime.now(UTC)
    good = (place / "service.yaml").read_bytes()
    (place / "service.yaml").write_text("broken")
    time.sleep(0.01)  # when a backup was finished is told to the millisecond
    back_up(drill.open(), {"configuration": FolderSource(place)}, "full-2")
    done = restore(drill)
    assert done["evidence"]["set_id"] == "full-1"
    assert (place / "service.yaml").read_bytes() == good
    assert equal(drill)["status"] == "passed"


def test_nothing_is_written_into_a_place_of_something_else(drill: Drill, place: Path) -> None:
    (place / "service.yaml").write_text("broken")
    write_place_marker(place, Marker(service="fastvlm-demo", environment="production"))
    done = restore(drill)
    assert done["status"] == "inconclusive"
    assert "production" in done["detail"]
    (place / MARKER_FILE).unlink()
    assert restore(drill)["status"] == "inconclusive"
    assert (place / "service.yaml").read_text() == "broken"
    assert drill.act("restore_backup", component="configuration", place="elsewhere")["status"] == (
        "inconclusive"
    )


def test_a_component_without_a_backup_is_a_failure(drill: Drill) -> None:
    done = drill.act("restore_backup", component="models", place="configuration")
    assert done["status"] == "failed"
    assert "no published backup" in done["detail"]


# -- S3 that cannot be reached ------------------------------------------------------------------------------


@contextmanager
def black_hole() -> Iterator[str]:
    """An address that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def refusing() -> Iterator[str]:
    """An address where nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


@contextmanager
def resetting() -> Iterator[str]:
    """An address that ends each connection at once."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def end() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                connection.close()

        threading.Thread(target=end, daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def unreachable(drill: Drill) -> Drill:
    """A drill in which the way to S3 is broken."""
    drill.fault = LinkFault(control="unix:/nowhere", link="object_store", disturbance="refuse")
    drill.definition = {
        "steps": {
            "simulate_failure": {
                "fault": "disturb_link",
                "link": "object_store",
                "disturbance": "refuse",
                "time_to_live_seconds": 60.0,
            },
            "verify_failover": [{"check": "backup_fails"}],
            "restore_service": [{"action": "run_backup", "place": "configuration"}],
            "validate_recovery": [{"check": "backups_restore"}],
        }
    }
    return drill


def links_of(drill: Drill) -> dict[str, str]:
    service: Any = drill.control
    links: dict[str, str] = service.links
    return links


def fails(drill: Drill, **values: Any) -> dict[str, Any]:
    from fastvlm_ops.core.config.disaster_recovery_steps import BackupFails
    from fastvlm_ops.core.disaster_recovery.steps import run_check

    step = BackupFails.model_validate({"check": "backup_fails", "within_seconds": 60.0, **values})
    return run_check(step, drill.plan(), drill.around())


@pytest.mark.parametrize("way", [refusing, resetting, black_hole])
def test_a_backup_fails_in_time_names_the_storage_and_the_next_one_is_whole(
    unreachable: Drill, seaweedfs: SeaweedFS, way: Any
) -> None:
    drill = unreachable
    with way() as address:
        links_of(drill)["object_store"] = address
        found = fails(drill)
        assert found["status"] == "passed", found["detail"]
        assert found["evidence"]["ended_after_seconds"] < 60
        assert drill.act("run_backup", place="configuration")["status"] == "inconclusive"
    assert len(drill.open().refresh().snapshots) == 1, "nothing was committed"

    port = urlsplit(seaweedfs.endpoint_url).port
    assert port is not None
    with TcpProxy(port, 1 << 60, lambda _: None) as link:
        links_of(drill)["object_store"] = f"127.0.0.1:{link.port}"
        made = drill.act("run_backup", place="configuration")
        assert made["status"] == "passed", made["detail"]
        assert f"127.0.0.1:{link.port}" in made["evidence"]["way"]
    found = drill.check("backups_restore")
    assert found["status"] == "passed", found["detail"]
    assert "full-1 of before" in found["detail"]
    assert not (drill.own / "scratch" / "backups").exists()


def test_a_backup_that_completes_was_not_broken(unreachable: Drill, seaweedfs: SeaweedFS) -> None:
    links_of(unreachable)["object_store"] = urlsplit(seaweedfs.endpoint_url).netloc
    found = fails(unreachable)
    assert found["status"] == "failed"
    assert "completed" in found["detail"]


def test_a_backup_that_never_ends_is_a_failure(unreachable: Drill) -> None:
    with black_hole() as address:
        links_of(unreachable)["object_store"] = address
        found = fails(unreachable, within_seconds=0.5)
    assert found["status"] == "failed"
    assert "still tries after 0.5 s" in found["detail"]


def test_a_link_that_is_not_known_proves_nothing(unreachable: Drill) -> None:
    assert fails(unreachable)["status"] == "inconclusive"


def test_backups_that_do_not_restore_or_are_not_the_place_are_found(
    unreachable: Drill, seaweedfs: SeaweedFS, s3_client: S3Client, place: Path
) -> None:
    drill = unreachable
    assert drill.check("backups_restore")["status"] == "inconclusive", "none was made"
    links_of(drill)["object_store"] = urlsplit(seaweedfs.endpoint_url).netloc
    assert drill.act("run_backup", place="configuration")["status"] == "passed"
    (place / "service.yaml").write_text("altered since")
    found = drill.check("backups_restore")
    assert found["status"] == "failed"
    assert "service.yaml has " in found["detail"]
    for one in s3_client.list_objects_v2(Bucket=drill.bucket, Prefix="some/prefix/packs/")["Contents"]:
        body = bytearray(s3_client.get_object(Bucket=drill.bucket, Key=one["Key"])["Body"].read())
        body[len(body) // 2] ^= 1
        s3_client.put_object(Bucket=drill.bucket, Key=one["Key"], Body=bytes(body))
    found = drill.check("backups_restore")
    assert found["status"] in ("failed", "inconclusive")
