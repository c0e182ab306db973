"""How much memory a base backup takes."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from fastvlm_ops.core.backup import Repository
from fastvlm_ops.core.backup.postgresql.programs import Programs
from tests.integration.backup.conftest import PASSPHRASE
from tests.integration.postgresql.conftest import MakeServer, execute, url_of

if TYPE_CHECKING:
    from fastvlm_ops.local.seaweedfs import SeaweedFS

pytestmark = [pytest.mark.integration, pytest.mark.slow]

LIMIT_MIB = 256
_BACKUP = """
import json, sys
from sqlalchemy import make_url
from fastvlm_ops.core.backup import S3Storage, create_client, create_snapshot, open_repository
from fastvlm_ops.core.backup.postgresql.base_backup import PostgreSQLClusterSource
from fastvlm_ops.core.backup.postgresql.programs import find_programs
from pathlib import Path

told = json.load(sys.stdin)
storage = S3Storage(create_client(**told["client"]), told["bucket"], told["prefix"])
source = PostgreSQLClusterSource(
    make_url(told["url"]), programs=find_programs(14, folder=Path(told["programs"]))
)
result = create_snapshot(
    open_repository(storage, told["passphrase"], chunks=True), source, component="cluster",
    kind=told["kind"], run_key=told["kind"],
)
peak = [line for line in open("/proc/self/status") if line.startswith("VmHWM")][0]
print(json.dumps([int(peak.split()[1]) // 1024, result.size_bytes, result.new_bytes]))
"""


def test_memory_does_not_grow_with_the_cluster(
    make_server: MakeServer, clients: Programs, repository: Repository, seaweedfs: SeaweedFS
) -> None:
    server = make_server(segment_mb=16, settings={"max_wal_size": "1GB"})
    execute(server, "CREATE UNLOGGED TABLE made (a text)")  # so that it is quickly made
    execute(server, "ALTER TABLE made ALTER a SET STORAGE EXTERNAL")
    execute(
        server,
        "INSERT INTO made SELECT string_agg(sha256((n * 40 + m)::text::bytea)::text, '')"
        " FROM generate_series(1, 200000) AS n, generate_series(1, 40) AS m GROUP BY n",
    )
    execute(server, "ALTER TABLE made SET LOGGED")
    execute(server, "VACUUM (FREEZE) made")
    credentials = repository.storage.client._request_signer._credentials
    told = {
        "client": {
            "endpoint_url": repository.storage.client.meta.endpoint_url,
            "access_key_id": credentials.access_key,
            "secret_access_key": credentials.secret_key,
        },
        "bucket": repository.storage.bucket,
        "prefix": repository.storage.prefix,
        "passphrase": PASSPHRASE,
        "url": url_of(server).render_as_string(hide_password=False),
        "programs": str(clients.folder),
    }
    for kind in ("full", "incremental"):
        done = subprocess.run(
            [sys.executable, "-c", _BACKUP],
            input=json.dumps({**told, "kind": kind}),
            capture_output=True,
            text=True,
            check=False,
            timeout=280,
        )
        assert done.returncode == 0, done.stderr
        peak_mib, size_bytes, new_bytes = json.loads(done.stdout)
        print(f"{kind}: {peak_mib} MiB for {size_bytes >> 20} MiB, {new_bytes >> 20} MiB new")
        assert size_bytes > 500 << 20
        assert peak_mib <= LIMIT_MIB
