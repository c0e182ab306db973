"""Permissions that only some requests need, and credentials that run out while a backup runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fastvlm_ops.core.backup import (
    CredentialsError,
    S3Storage,
    create_client,
    initialise_repository,
    open_repository,
    restore_snapshot,
)
from tests.fault_proxy import Fault, FaultProxy, Request, access_denied, expired_token, on
from tests.integration.backup.conftest import PASSPHRASE, back_up
from tests.integration.backup.test_network_faults import through
from tests.trees import describe, make_plain_tree

if TYPE_CHECKING:
    from fastvlm_ops.local.seaweedfs import SeaweedFS

REQUESTS = 6  # that the first credentials are good for

# What a cloud gives to its machines: keys that hold for five minutes. It notes each time that it is asked.
ISSUER = """\
#!{python} -ISs
import datetime, json
until = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(minutes=5)
open({note!r}, "a").write("issued\\n")
keys = {{"AccessKeyId": {key!r}, "SecretAccessKey": {secret!r}}}
print(json.dumps({{"Version": 1, "Expiration": until.isoformat(), **keys}}))
"""


def test_a_repository_is_made_and_used_without_the_permission_to_delete(
    seaweedfs: SeaweedFS, storage: S3Storage, tmp_path: Path
) -> None:
    """What the probe leaves behind are a few bytes."""
    tree = make_plain_tree(tmp_path / "source", files=3, large_bytes=1000)
    with FaultProxy(seaweedfs.endpoint_url, storage.prefix) as proxy:
        remote = through(proxy, seaweedfs, storage, timeout_seconds=2, attempts=2)
        with proxy.faults(on("DeleteObject", access_denied)) as requests:
            made = back_up(initialise_repository(remote, PASSPHRASE), tree, "run-1")
            back_up(open_repository(remote, PASSPHRASE), tree, "run-2", "incremental")
            restore_snapshot(open_repository(remote, PASSPHRASE), made.snapshot_id, tmp_path / "target")
    assert describe(tmp_path / "target") == describe(tree)
    assert [request.place.split("/")[0] for request in requests if "Delete" in request.operation] == [
        "DeleteObject probe"
    ]
    assert sum(info.size_bytes for info in storage.list("probe/")) < 100


@pytest.mark.parametrize("issued", ["by a program that renews them", "once"])
def test_credentials_that_run_out_are_renewed_where_they_can_be(
    issued: str,
    seaweedfs: SeaweedFS,
    storage: S3Storage,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first ones hold for the beginning of a run."""
    monkeypatch.setattr("fastvlm_ops.core.backup.packs.PACK_BYTES", 200 << 10)
    initialise_repository(storage, PASSPHRASE)
    tree = make_plain_tree(tmp_path / "source", files=3, large_bytes=1 << 20)
    note, program, config = tmp_path / "issued", tmp_path / "issuer", tmp_path / "config"
    keys = {"key": seaweedfs.access_key_id, "secret": seaweedfs.secret_access_key}
    program.touch(mode=0o700)
    program.write_text(ISSUER.format(python=sys.executable, note=str(note), **keys))
    config.write_text(f"[default]\ncredential_process = {program}\n")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))

    def of_the_first(request: Request) -> Fault | None:
        times_issued = note.read_text().count("issued")
        return expired_token if request.number > REQUESTS and times_issued == 1 else None

    with FaultProxy(seaweedfs.endpoint_url, storage.prefix) as proxy:
        if issued == "once":
            note.write_text("issued\n")
            remote = through(proxy, seaweedfs, storage, timeout_seconds=5, attempts=2)
        else:
            client = create_client(endpoint_url=proxy.endpoint_url)
            remote = S3Storage(client, storage.bucket, storage.prefix)
        with proxy.faults(of_the_first) as requests:
            if issued == "once":
                with pytest.raises(CredentialsError, match="ExpiredToken"):
                    back_up(open_repository(remote, PASSPHRASE), tree, "run")
                return
            result = back_up(open_repository(remote, PASSPHRASE), tree, "run")
    assert len(requests) > 2 * REQUESTS
    restore_snapshot(open_repository(storage, PASSPHRASE), result.snapshot_id, tmp_path / "target")
    assert describe(tmp_path / "target") == describe(tree)
