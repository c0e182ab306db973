"""The PostgreSQL server of the tests, as others rely on it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest

from fastvlm_ops.local.ports import HOST, answers
from fastvlm_ops.local.postgres import PostgreSQL
from tests.listening import addresses_of

pytestmark = pytest.mark.integration


def test_listens_on_loopback_only_and_not_as_root(postgres: PostgreSQL) -> None:
    processes = [member.pid for member in postgres.processes.alive()]
    assert processes
    assert set(addresses_of(processes)) == {(HOST, postgres.port)}
    for pid in processes:
        assert Path(f"/proc/{pid}").stat().st_uid != 0


def test_wants_its_password(postgres: PostgreSQL) -> None:
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(host=HOST, port=postgres.port, user=postgres.user, dbname="postgres")
    for log in postgres.folder.rglob("*.log"):
        assert postgres.password not in log.read_text()


def test_names_are_no_statements(postgres: PostgreSQL) -> None:
    with pytest.raises(ValueError, match="cannot name a database"):
        postgres.make_database('a"; DROP DATABASE b')


_OWNER = """
import os, sys
from pathlib import Path
from fastvlm_ops.local.postgres import PostgreSQL
server = PostgreSQL(Path(sys.argv[1]), die_with_parent=True)
server.start()
print(server.port, server._scratch, flush=True)
if sys.argv[2] == "stop":
    server.stop()
else:
    os._exit(9)
"""


@pytest.mark.parametrize("end", ["stop", "crash"])
def test_ends_with_whoever_started_it(tmp_path: Path, end: str) -> None:
    arguments = [sys.executable, "-c", _OWNER, str(tmp_path), end]
    owner = subprocess.run(arguments, capture_output=True, text=True, timeout=60, env=dict(os.environ))
    assert owner.stdout, owner.stderr
    port, scratch = owner.stdout.split()
    deadline = time.monotonic() + 10
    while answers(int(port)):
        assert time.monotonic() < deadline, "the server is still there"
        time.sleep(0.05)
    assert Path(scratch).exists() == (end == "crash")
    shutil.rmtree(scratch, ignore_errors=True)
