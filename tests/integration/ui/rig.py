"""A running api-server that knows the DAGs, and a real bucket; shared by tests, benchmark and pictures."""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import httpx

from fastvlm_ops.local.airflow_stack import USER, AirflowStack, Folders
from fastvlm_ops.local.processes import Process, Processes, tail
from fastvlm_ops.local.seaweedfs import SeaweedFS

ROOT = Path(__file__).resolve().parents[3]
BUCKET = "backups"
VIEWER = "viewer"
PASSWORDS = {USER: "of the administrator", VIEWER: "of the viewer"}
PASSPHRASE = "of a test"


class Rig:
    """Airflow's api-server and SeaweedFS. No scheduler: nothing here runs a task.

    :param folder: empty; all is kept in it
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.database = folder / "operations.db"
        self.damaged_set = self.recoverable_until = ""
        (folder / "scratch").mkdir()
        shutil.copytree(ROOT / "include", folder / "include")
        self.processes = Processes(folder)
        self.s3 = SeaweedFS(folder / "s3", processes=self.processes, die_with_parent=True)
        options = {
            "include_dir": folder / "include",
            "kit_dir": folder / "kit",
            "restore_dir": folder / "restores",
            "scratch_dir": folder / "scratch",
            "database_path": self.database,
        }
        folders = Folders(ROOT, folder / "airflow", folder / "logs", folder / "scratch")
        self.airflow = AirflowStack(folders, self.processes, options=options)

    @property
    def url(self) -> str:
        return self.airflow.url

    def start(self) -> None:
        migration = self.airflow.start_migration()
        self.s3.start()
        self.s3.make_bucket(BUCKET)
        self._finish(migration)
        (self.folder / "airflow" / "passwords.json").write_text(json.dumps(PASSWORDS))
        self._finish(self._start("reserialize", ["dags", "reserialize"]))
        server = self._start("api-server", ["api-server", "--workers", "1"])
        deadline = time.monotonic() + 180  # on a machine that is busy with other tests
        while not self._answers():
            server.check()
            assert time.monotonic() < deadline, tail(server.log)
            time.sleep(0.2)

    def stop(self) -> None:
        self.processes.stop(patience_seconds=0)
        shutil.rmtree(self.folder / "s3" / "data", ignore_errors=True)

    def log(self) -> str:
        return (self.folder / "logs" / "api-server.log").read_text(errors="replace")

    def connection(self) -> dict[str, Any]:
        extra = {
            "bucket": BUCKET,
            "endpoint_url": self.s3.endpoint_url,
            "repository_passphrase": PASSPHRASE,
        }
        login, password = self.s3.access_key_id, self.s3.secret_access_key
        return {"conn_type": "fastvlm_s3", "login": login, "password": password, "extra": extra}

    def client(self, user: str | None = None) -> httpx.Client:
        """A client of the api-server, signed in by the cookie that a browser would have."""
        cookies = {}
        if user is not None:
            body = {"username": user, "password": PASSWORDS[user]}
            answer = httpx.post(f"{self.url}/auth/token", json=body, timeout=60, trust_env=False)
            cookies["_token"] = answer.raise_for_status().json()["access_token"]
        return httpx.Client(base_url=self.url, cookies=cookies, timeout=60, trust_env=False)

    def _start(self, name: str, arguments: list[str]) -> Process:
        variables = {
            "AIRFLOW_CONN_FASTVLM_S3": json.dumps(self.connection()),
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USER}:admin,{VIEWER}:viewer",
        }
        return self.processes.start(
            name,
            [sys.executable, "-m", "airflow", *arguments],
            environment={**self.airflow.environment(), **variables},
            log=self.folder / "logs" / f"{name}.log",
            folder=self.folder / "airflow",
            die_with_parent=True,
        )

    def _finish(self, process: Process) -> None:
        assert self.processes.wait(process) == 0, tail(process.log, 60)

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/api/v2/version", timeout=5, trust_env=False).is_success
        except httpx.HTTPError:
            return False
