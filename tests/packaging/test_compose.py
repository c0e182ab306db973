"""docker-compose.yaml: valid for the compose tool, every image pinned, nothing open, no secret in it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from fastvlm_ops.core.store import open_store

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docker-compose.yaml").read_text()
SERVICES = yaml.safe_load(TEXT)["services"]
SECRETS = {
    line.rstrip("=") for line in (ROOT / ".env.example").read_text().splitlines() if line.endswith("=")
}


@pytest.fixture
def env(tmp_path):
    """A folder with the compose file and the .env that `make compose-env` writes."""
    (tmp_path / "scripts").mkdir()
    for name in ("docker-compose.yaml", ".env.example", "scripts/compose-env.sh"):
        shutil.copy(ROOT / name, tmp_path / name)
    subprocess.run([tmp_path / "scripts/compose-env.sh"], check=True, capture_output=True)
    return tmp_path


def read_env(path: Path) -> dict[str, str]:
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def compose_command() -> list[str]:
    for command in (["docker", "compose"], ["docker-compose"]):
        if (
            shutil.which(command[0])
            and not subprocess.run([*command, "version"], capture_output=True).returncode
        ):
            return command
    pytest.skip("neither `docker compose` nor `docker-compose` is installed")


def test_images_are_pinned_to_exact_versions():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    images = {service["image"] for service in SERVICES.values()}
    images |= set(re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(), re.M))
    for image in images:
        assert re.search(r":[a-z-]*\d+\.\d+", image), image
    assert f"fastvlm-ops:{version}" in images


def test_the_image_has_the_airflow_of_the_lock():
    locked = re.search(r"^apache-airflow==(\S+)", (ROOT / "requirements.lock").read_text(), re.M)[1]
    assert f"-{locked}-" in re.search(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(), re.M)[1]


def test_ports_are_published_on_loopback_only():
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)
    assert not any("network_mode" in service for service in SERVICES.values())


def test_every_secret_is_required_and_none_has_a_default():
    used = re.findall(r"\$\{(FASTVLM_\w+)(:\?|:-)?", TEXT)
    assert {name for name, _ in used if not name.endswith("_PORT")} == SECRETS | {"FASTVLM_KIT_DIR"}
    assert {how for name, how in used if not name.endswith("_PORT")} == {":?"}


def test_every_service_that_stays_up_has_a_health_check():
    assert {name for name, service in SERVICES.items() if "healthcheck" not in service} == {"airflow-init"}


def test_compose_env_makes_secrets_and_keeps_an_existing_file(env):
    first = (env / ".env").read_text()
    values = read_env(env / ".env")
    assert all(len(values[name]) >= 40 for name in SECRETS)
    assert len({values[name] for name in SECRETS}) == len(SECRETS)
    assert (env / ".env").stat().st_mode & 0o777 == 0o600
    subprocess.run([env / "scripts/compose-env.sh"], check=True, capture_output=True)
    assert (env / ".env").read_text() == first


def test_compose_config_accepts_it(env):
    command = [*compose_command(), "--profile", "postgresql", "config"]
    result = subprocess.run(command, cwd=env, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    services = yaml.safe_load(result.stdout)["services"]
    assert set(services) == set(SERVICES)
    connection = json.loads(services["airflow-scheduler"]["environment"]["AIRFLOW_CONN_FASTVLM_S3"])
    values = read_env(env / ".env")
    assert connection["conn_type"] == "fastvlm_s3"
    assert connection["login"] == values["FASTVLM_S3_ACCESS_KEY_ID"]
    assert connection["extra"]["repository_passphrase"] == values["FASTVLM_REPOSITORY_PASSPHRASE"]


def test_the_databases_are_one_for_all_services(env):
    result = subprocess.run([*compose_command(), "config"], cwd=env, capture_output=True, text=True)
    services = yaml.safe_load(result.stdout)["services"]
    password = read_env(env / ".env")["FASTVLM_POSTGRES_PASSWORD"]
    ours = {name: service for name, service in services.items() if name.startswith("airflow-")}
    assert len(ours) == 5
    for service in ours.values():
        for name, database in {"FASTVLM_OPS_DB": "fastvlm_ops", "FASTVLM_AIRFLOW_DB": "airflow"}.items():
            connection = json.loads(service["environment"][f"AIRFLOW_CONN_{name}"])
            assert connection == {
                "conn_type": "postgres",
                "host": "postgres",
                "port": 5432,
                "schema": database,
                "login": "airflow",
                "password": password,
            }
    own = services["airflow-scheduler"]["environment"]["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"]
    assert own == f"postgresql+psycopg2://airflow:{password}@postgres/airflow"


def test_the_receiver_of_wal_waits_to_be_asked_for_and_keeps_its_spool():
    receiver = SERVICES["receive-wal"]
    assert receiver["profiles"] == ["postgresql"]
    spool = receiver["environment"]["AIRFLOW__FASTVLM_OPS__WAL_SPOOL_DIR"]
    assert f"wal-spool:{spool}" in receiver["volumes"]
    assert spool in (ROOT / "Dockerfile").read_text()  # made there, for a user who is not root
    assert receiver["entrypoint"][:2] == ["fastvlm-ops", "receive-wal"]


def test_the_reaper_of_faults_sees_what_the_tasks_see():
    reaper, tasks = SERVICES["reap-faults"], SERVICES["airflow-scheduler"]
    assert reaper["entrypoint"] == ["fastvlm-ops", "reap-faults"]
    assert reaper["pid"] == "service:airflow-scheduler"  # faults are of processes of that container
    assert reaper["hostname"] == tasks["hostname"]
    assert reaper["volumes"] == tasks["volumes"]
    folder = reaper["environment"]["AIRFLOW__FASTVLM_OPS__DRILL_DIR"]
    assert tasks["environment"]["AIRFLOW__FASTVLM_OPS__DRILL_DIR"] == folder
    assert f"drills:{folder}" in reaper["volumes"]
    metrics = reaper["environment"]["AIRFLOW__FASTVLM_OPS__METRICS_DIR"]
    made = (ROOT / "Dockerfile").read_text()  # there, for a user who is not root
    assert f" {folder} " in made
    assert f" {metrics} " in made
    assert f"{metrics}/fastvlm_drill_faults.prom" in reaper["healthcheck"]["test"][1]


def test_the_operations_pages_are_mounted_where_airflow_looks_for_plugins():
    mounts = dict(volume.split(":")[:2] for volume in SERVICES["airflow-apiserver"]["volumes"])
    (source,) = [here for here, there in mounts.items() if there.startswith("/opt/airflow/plugins/")]
    assert (ROOT / source).is_file()
    # The package is in the image; with its folder mounted too, Airflow would load it twice.
    assert [path for path in mounts if "plugins" in path] == [source]


def init_script() -> str:
    return SERVICES["airflow-init"]["command"][2].replace("$$", "$")


def test_init_migrates_before_it_makes_the_pools():
    lines = init_script().splitlines()
    assert lines.index("airflow db migrate") < lines.index("python -m fastvlm_ops.cli.pools")


@pytest.mark.integration
def test_what_init_does_in_python_works_twice(seaweedfs, postgres):
    code = re.search(r"<<'PYTHON'\n(.*)\nPYTHON$", init_script(), re.M | re.S)[1]
    server = {"conn_type": "postgres", "host": "127.0.0.1", "port": postgres.port, "schema": "fastvlm_ops"}
    server |= {"login": postgres.user, "password": postgres.password}
    extra = {"bucket": "compose", "endpoint_url": seaweedfs.endpoint_url, "region_name": "us-east-1"}
    s3 = {"login": seaweedfs.access_key_id, "password": seaweedfs.secret_access_key, "extra": extra}
    variables = {"AIRFLOW_CONN_FASTVLM_S3": json.dumps(s3), "AIRFLOW_CONN_FASTVLM_OPS_DB": json.dumps(server)}
    for _ in range(2):
        command = [sys.executable, "-"]
        environment = {**os.environ, **variables}
        done = subprocess.run(command, input=code, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    with open_store(postgres.url("fastvlm_ops")):
        pass  # which refuses tables that are not those of this version
    assert "compose" in [bucket["Name"] for bucket in seaweedfs.client().list_buckets()["Buckets"]]


def test_compose_config_says_what_to_do_without_env(env):
    (env / ".env").unlink()
    result = subprocess.run([*compose_command(), "config"], cwd=env, capture_output=True, text=True)
    assert result.returncode != 0
    assert "make compose-env" in result.stderr
