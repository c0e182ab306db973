"""Every file of include/ against its model; nothing is passed over."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fastvlm_ops.cli import main
from fastvlm_ops.cli.validate import check_folder

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def include(tmp_path: Path) -> Path:
    return Path(shutil.copytree(ROOT / "include", tmp_path / "include"))


def messages(folder: Path) -> list[str]:
    return [str(problem).removeprefix(f"{folder}/") for problem in check_folder(folder)[1]]


def test_the_shipped_files_are_right(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", str(ROOT / "include")]) == 0
    said = capsys.readouterr().out
    shipped = {path.relative_to(ROOT / "include").as_posix() for path in (ROOT / "include").rglob("*.*")}
    assert all(name in said for name in shipped)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("components.yaml", "version: 1\ncomponents: []\n", "components"),
        ("components.yaml", "version: 1\ncomponents: [", "not valid YAML"),
        ("componets.yaml", "version: 1\n", "is not known, and nothing reads it; known: components.yaml"),
        ("capacity.yaml", "version: 1\n", "resources: is missing"),
        ("coreml.yaml", "version: 1\n", "models: is missing"),
        ("schemas/other.schema.json", "{}", "is no schema of this version"),
        ("schemas/components.schema.json", "{}", "is not this version's schema; run fastvlm-ops init"),
        ("policies/backup.json", "{}", "Statement: is missing"),
        ("policies/backup.yaml", "{}", "is not known"),
        ("observability/prometheus/new.rules.yaml", "groups: []\n", "groups"),
        (
            "observability/prometheus/new.rules.yaml",
            "groups: [{name: one, rules: [{expr: up}]}]\n",
            "a rule has either the key alert or the key record",
        ),
        ("observability/prometheus/rules.yaml", "groups: []\n", "is not known"),
        ("observability/prometheus/prometheus.yml", "scrape_configs: [{}]\n", "job_name"),
        ("observability/prometheus/prometheus.yml", "scrape_config: []\n", "scrape_config"),
    ],
)
def test_what_is_wrong_is_named(
    include: Path, capsys: pytest.CaptureFixture[str], name: str, text: str, said: str
) -> None:
    (include / name).write_text(text)
    assert main(["validate", str(include)]) == 1
    assert said in capsys.readouterr().out
    assert [message.split(":")[0].split(" has ")[0] for message in messages(include)] == [name]


@pytest.mark.parametrize("name", ["components.yaml", "schemas/components.schema.json"])
def test_bytes_that_are_no_text_are_no_crash(include: Path, name: str) -> None:
    (include / name).write_bytes(b"\xff\xfe\x00")
    assert len(messages(include)) == 1


def test_all_that_is_wrong_is_told_at_once(include: Path) -> None:
    (include / "components.yaml").unlink()
    (include / "unknown.txt").touch()
    assert messages(include) == [
        "components.yaml: does not exist",
        "unknown.txt: is not known, and nothing reads it; known: components.yaml, capacity.yaml,"
        " coreml.yaml, disaster_recovery_policy.yaml, disaster_recovery/*.y*ml, policies/*.json,"
        " observability/prometheus/*.rules.yaml, observability/prometheus/prometheus.yml",
    ]


def test_what_editors_and_init_leave_is_no_definition(include: Path) -> None:
    for name in ("components.yaml.new", "components.yaml~", ".components.yaml.swp", ".git/config"):
        (include / name).parent.mkdir(exist_ok=True)
        (include / name).touch()
    assert messages(include) == []


def test_a_folder_that_is_not_there_is_no_success(tmp_path: Path) -> None:
    assert main(["validate", str(tmp_path / "nowhere")]) == 1


def test_it_needs_no_airflow(include: Path) -> None:
    """As pre-commit runs it."""
    code = "import sys; sys.modules['airflow'] = None; from fastvlm_ops.cli import main; sys.exit(main())"
    named = subprocess.run([sys.executable, "-c", code, "validate", include], capture_output=True, text=True)
    assert (named.returncode, named.stderr) == (0, "")
    unnamed = subprocess.run([sys.executable, "-c", code, "validate"], capture_output=True, text=True)
    assert unnamed.returncode == 1
    assert unnamed.stderr == "fastvlm-ops: Airflow is not installed here; install it, or name a folder\n"
