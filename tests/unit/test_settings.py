"""The [fastvlm_ops] section, as declared and as read."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from fastvlm_ops import settings
from tests.airflow_home import AIRFLOW_HOME, ROOT

OPTIONS = (
    *("include_dir", "kit_dir", "restore_dir", "scratch_dir", "database_path", "metrics_dir"),
    *("postgresql_bin_dir", "wal_spool_dir"),
)


def set_option(monkeypatch: pytest.MonkeyPatch, option: str, value: object) -> None:
    monkeypatch.setenv(f"AIRFLOW__FASTVLM_OPS__{option.upper()}", str(value))


def test_defaults() -> None:
    assert settings.include_dir() == ROOT / "include"  # beside the DAGs folder
    assert settings.kit_dir() is None
    assert settings.scratch_dir() == Path(tempfile.gettempdir())
    assert settings.metrics_dir() is None
    assert settings.database_path() == AIRFLOW_HOME / "fastvlm_ops.db"


@pytest.mark.parametrize("option", OPTIONS)
def test_reads_the_environment_at_each_call(
    option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_option(monkeypatch, option, f" {tmp_path} ")
    assert getattr(settings, option)() == tmp_path


@pytest.mark.parametrize("option", OPTIONS)
def test_refuses_a_relative_path(option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    set_option(monkeypatch, option, "somewhere")
    with pytest.raises(settings.SettingError, match=rf"\[fastvlm_ops\] {option} is 'somewhere', which"):
        getattr(settings, option)()


@pytest.mark.parametrize("option", ["include_dir", "scratch_dir", "metrics_dir"])
def test_refuses_a_folder_that_is_not_there(
    option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_option(monkeypatch, option, tmp_path / "nowhere")
    with pytest.raises(
        settings.SettingError, match=rf"not a folder\. .* AIRFLOW__FASTVLM_OPS__{option.upper()}"
    ):
        getattr(settings, option)()


def test_received_wal_waits_in_the_scratch_folder_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings.wal_spool_dir() == Path(tempfile.gettempdir()) / "wal"
    assert settings.wal_spool_max_gib() == 8
    set_option(monkeypatch, "wal_spool_max_gib", "0.5")
    assert settings.wal_spool_max_gib() == 0.5
    for value in ("0", "-1", "much", "nan", "inf"):
        set_option(monkeypatch, "wal_spool_max_gib", value)
        with pytest.raises(settings.SettingError, match="must be a number of GiB above 0"):
            settings.wal_spool_max_gib()


def test_restores_need_a_folder() -> None:
    with pytest.raises(settings.SettingError, match="restore_dir is not set"):
        settings.restore_dir()


def test_the_database_needs_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_option(monkeypatch, "database_path", tmp_path / "nowhere" / "ops.db")
    with pytest.raises(settings.SettingError, match=r"database_path is .*, whose folder does not exist"):
        settings.database_path()


def test_the_tasks_that_remove_use_the_connection_of_all_others_unless_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert settings.pruning_conn_id() == "fastvlm_s3"
    set_option(monkeypatch, "pruning_conn_id", " fastvlm_s3_pruning ")
    assert settings.pruning_conn_id() == "fastvlm_s3_pruning"
