"""What the installed package tells Airflow's provider manager."""

from __future__ import annotations

import importlib
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


HOOKS = {
    "fastvlm_s3": "s3.BackupRepositoryHook",
    "fastvlm_prometheus": "prometheus.PrometheusHook",
    "fastvlm_apple_device": "apple_device.AppleDeviceHook",
    "fastvlm_service": "service.ServiceHook",
}
SECRET = {
    "fastvlm_s3": ["repository_passphrase"],
    "fastvlm_prometheus": ["headers"],
    "fastvlm_apple_device": ["provisioning_profile_uuid"],
    "fastvlm_service": [],
}
RELABELED = {
    "fastvlm_s3": {"login": "Access key id", "password": "Secret access key"},
    "fastvlm_prometheus": {"host": "URL", "password": "Password, or bearer token"},
    "fastvlm_apple_device": {
        "host": "UDID",
        "login": "Development team",
        "password": "Salt of its hash",
    },
    "fastvlm_service": {"host": "Address of its control"},
}


def module_of(kind: str) -> Any:
    return importlib.import_module(f"fastvlm_ops.hooks.{HOOKS[kind].partition('.')[0]}")


@pytest.mark.parametrize("kind", HOOKS)
def test_the_connection_type_is_that_of_the_hook(manager: Any, kind: str) -> None:
    found, cls = manager.hooks[kind], getattr(module_of(kind), HOOKS[kind].partition(".")[2])
    assert found.hook_class_name == f"fastvlm_ops.hooks.{HOOKS[kind]}"
    assert found.connection_id_attribute_name == cls.conn_name_attr
    assert found.connection_type == cls.conn_type == cls.default_conn_name
    declared = {entry["connection-type"]: entry for entry in get_provider_info()["connection-types"]}
    assert set(declared) == set(HOOKS)
    assert declared[kind]["hook-name"] == found.hook_name == cls.hook_name
    assert found.connection_testable


@pytest.mark.parametrize("kind", HOOKS)
def test_the_form_has_the_fields_that_the_hook_reads(manager: Any, kind: str) -> None:
    prefix = f"extra__{kind}__"
    fields = {
        name.removeprefix(prefix): widget
        for name, widget in manager.connection_form_widgets.items()
        if name.startswith(prefix)
    }
    assert set(fields) == set(module_of(kind)._EXTRAS)
    assert [name for name, field in fields.items() if field.is_sensitive] == SECRET[kind]
    assert manager.field_behaviours[kind]["relabeling"] == RELABELED[kind]


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
