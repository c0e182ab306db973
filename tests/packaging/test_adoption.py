"""An Airflow that knows nothing of us, and the lines of the README: a backup of a folder lies in a bucket."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fastvlm_ops.local.seaweedfs import SeaweedFS

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]
UV = Path(sys.executable).with_name("uv")
PASSPHRASE = "correct horse battery staple"


def readme_lines() -> str:
    block = re.search(
        r"<!-- adoption -->\n```\n(.*?)```\n<!-- /adoption -->", (ROOT / "README.md").read_text(), re.S
    )
    assert block is not None
    lines = block[1]
    assert len(lines.splitlines()) <= 5
    return lines


def run(*command: str | Path, env: dict[str, str], cwd: Path) -> str:
    result = subprocess.run(
        command,
        env=env,
        cwd=cwd,
        text=True,
        timeout=600,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert result.returncode == 0, result.stdout[-6000:]
    return result.stdout


@pytest.fixture
def environment(tmp_path: Path, seaweedfs: SeaweedFS, bucket: str) -> dict[str, str]:
    """Variables of a shell in which Airflow 3.3 is installed and migrated, and nothing of ours."""
    programs = tmp_path / "venv" / "bin"
    kept = {key: os.environ[key] for key in ("HOME", "LANG", "TMPDIR") if key in os.environ}
    kept |= {
        key: value
        for key, value in os.environ.items()
        if key.startswith(("PIP_INDEX", "PIP_CERT", "SSL_", "UV_"))
    }
    kept |= {
        "PATH": f"{programs}:/usr/bin:/bin",
        "AIRFLOW_HOME": str(tmp_path / "airflow"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_CONSTRAINT": str(tmp_path / "constraints.txt"),
        "PIP_FIND_LINKS": str(tmp_path / "dist"),
    }
    lock = (ROOT / "requirements.lock").read_text()
    versions = re.findall(r"^[a-zA-Z0-9._-]+==[^\\\n]+", lock, re.M)
    (tmp_path / "constraints.txt").write_text("\n".join(versions) + "\n")
    run(
        UV, "venv", "--quiet", "--seed", "--python", sys.executable, tmp_path / "venv", env=kept, cwd=tmp_path
    )
    airflow = ("pip", "install", "--quiet", "--python", tmp_path / "venv", "--constraint", "constraints.txt")
    run(UV, *airflow, "apache-airflow", env=kept, cwd=tmp_path)
    run("airflow", "db", "migrate", env=kept, cwd=tmp_path)
    build = ("build", "--quiet", "--wheel", "--no-build-isolation", "--python", sys.executable)
    run(UV, *build, "-o", tmp_path / "dist", ROOT, env=kept, cwd=tmp_path)
    return kept | {
        "FOLDER": str(tmp_path / "documents"),
        "BUCKET": bucket,
        "ENDPOINT_URL": seaweedfs.endpoint_url,
        "AWS_ACCESS_KEY_ID": seaweedfs.access_key_id,
        "AWS_SECRET_ACCESS_KEY": seaweedfs.secret_access_key,
        "AWS_EC2_METADATA_DISABLED": "true",
        "PASSPHRASE": PASSPHRASE,
    }


def test_the_lines_of_the_readme(environment: dict[str, str], tmp_path: Path) -> None:
    documents = tmp_path / "documents"
    (documents / "below").mkdir(parents=True)
    (documents / "below" / "one.txt").write_text("one\n")
    (documents / "two.bin").write_bytes(bytes(range(256)) * 1000)
    said = run("bash", "-e", "-u", "-c", readme_lines(), env=environment, cwd=tmp_path)
    assert "pools created: fastvlm_backup, fastvlm_maintenance, fastvlm_drills, fastvlm_drill_undo, " in said
    assert PASSPHRASE not in said.replace(readme_lines(), "")
    # Read back by the program that shares no code with the package.
    restore = environment | {
        "FASTVLM_PASSPHRASE": PASSPHRASE,
        "AWS_ENDPOINT_URL": environment["ENDPOINT_URL"],
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    command = (sys.executable, ROOT / "restore_min.py", environment["BUCKET"], "kit", tmp_path / "restored")
    run(*command, env=restore, cwd=tmp_path)
    restored = tmp_path / "restored" / "documents"
    assert (restored / "below" / "one.txt").read_text() == "one\n"
    assert (restored / "two.bin").read_bytes() == (documents / "two.bin").read_bytes()
    again = run("fastvlm-ops", "init", env=environment, cwd=tmp_path)
    assert again.startswith("kept: ")
    assert "is an example" not in again
