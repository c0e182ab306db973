"""What the installed package tells Airflow's provider manager."""

from __future__ import annotations

import inspect
from importlib.metadata import entry_points
from typing import Any

import pytest

import fastvlm_ops
from fastvlm_ops import settings
from fastvlm_ops.provider_info import get_provider_info


@pytest.fixture(scope="module")
def manager() -> Any:
    """Airflow's provider manager, which checks what it reads against its schema."""
    from airflow.providers_manager import ProvidersManager

    return ProvidersManager()


def test_is_found_by_its_entry_point(manager: Any) -> None:
    (point,) = [
        point
        for point in entry_points(group="apache_airflow_provider")
        if point.value.startswith("fastvlm_ops.")
    ]
    assert point.load() is get_provider_info
    assert manager.providers["fastvlm-ops"].version == fastvlm_ops.__version__
    assert get_provider_info()["versions"] == [fastvlm_ops.__version__]


def test_the_connection_type_is_that_of_the_hook(manager: Any) -> None:
    from fastvlm_ops.hooks.s3 import BackupRepositoryHook

    hook = manager.hooks["fastvlm_s3"]
    assert hook.hook_class_name == f"{BackupRepositoryHook.__module__}.{BackupRepositoryHook.__name__}"
    assert hook.connection_id_attribute_name == BackupRepositoryHook.conn_name_attr
    assert hook.connection_type == BackupRepositoryHook.conn_type == BackupRepositoryHook.default_conn_name
    (declared,) = get_provider_info()["connection-types"]
    assert declared["hook-name"] == hook.hook_name == BackupRepositoryHook.hook_name
    assert hook.connection_testable


def test_the_form_has_the_fields_that_the_hook_reads(manager: Any) -> None:
    from fastvlm_ops.hooks import s3

    prefix = "extra__fastvlm_s3__"
    fields = {
        name.removeprefix(prefix): widget
        for name, widget in manager.connection_form_widgets.items()
        if name.startswith(prefix)
    }
    assert set(fields) == set(s3._EXTRAS)
    assert [name for name, field in fields.items() if field.is_sensitive] == ["repository_passphrase"]
    assert manager.field_behaviours["fastvlm_s3"]["relabeling"] == {
        "login": "Access key id",
        "password": "Secret access key",
    }


def test_the_settings_are_those_that_are_read() -> None:
    options = get_provider_info()["config"]["fastvlm_ops"]["options"]
    readers = {
        name
        for name, function in inspect.getmembers(settings, inspect.isfunction)
        if function.__module__ == settings.__name__ and not name.startswith("_")
    }
    assert set(options) == readers - {"include_path"}  # which include_dir reads it by
    for option in options.values():
        assert set(option) == {"description", "type", "default", "example", "version_added"}
