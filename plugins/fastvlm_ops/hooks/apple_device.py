"""Hook to an iPhone, iPad or Mac that hangs on a worker on macOS."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException
from airflow.sdk.log import mask_secret

from fastvlm_ops.hooks.connections import ConnectionSettingError, unknown_field

if TYPE_CHECKING:
    from airflow.sdk import Connection

    from fastvlm_ops.core.config.coreml import ConditionRules, DeviceDefinition
    from fastvlm_ops.core.coreml.devices.interface import DeviceBackend

_EXTRAS = ("bundle_identifier", "provisioning_profile_uuid", "device_kind")
_KINDS = ("iphone", "ipad", "mac")


class AppleDeviceHook(BaseHook):
    """Gives the backend of the device behind a connection of type ``fastvlm_apple_device``.

    :param apple_device_conn_id: the connection; host is the device's UDID or devicectl's identifier (empty:
        the only one of its kind), login the development team that the runner app is signed by, password a
        salt of the hash that stands for the UDID in results (empty: the connection's id); extra has
        ``bundle_identifier``, ``provisioning_profile_uuid`` and ``device_kind``
    """

    conn_name_attr = "apple_device_conn_id"
    default_conn_name = "fastvlm_apple_device"
    conn_type = "fastvlm_apple_device"
    hook_name = "FastVLM device (iPhone, iPad or Mac)"

    def __init__(self, apple_device_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.apple_device_conn_id = apple_device_conn_id

    @cached_property
    def settings(self) -> dict[str, str]:
        """The connection's fields, as the registry of backends takes them; masked in the logs from here on.

        :raises ConnectionSettingError: the connection is missing, or a field is unknown or cannot be used
        """
        try:
            connection = self.get_connection(self.apple_device_conn_id)
        except AirflowNotFoundException:
            message = f"is not defined; create it with the type {self.conn_type}"
            raise ConnectionSettingError(self.apple_device_conn_id, message) from None
        settings = settings_of(connection)
        for secret in (settings["identifier"], settings["profile"], connection.password):
            if secret:
                mask_secret(secret)
        return settings

    def backend(
        self, definition: DeviceDefinition, conditions: ConditionRules | None = None
    ) -> DeviceBackend:
        """Return the backend of the device.

        :param definition: of the device
        :param conditions: that it has to be in to be measured, where it tells
        :raises ConnectionSettingError: the connection is missing, or a field is unknown or cannot be used
        """
        from fastvlm_ops.core.coreml.devices.registry import make_backend

        return make_backend(definition, connection=self.settings, conditions=conditions)

    def get_conn(self) -> DeviceBackend:
        """Return the backend of the device, under the connection's name; Airflow's customary name for it."""
        from fastvlm_ops.core.coreml.devices.registry import make_connected_backend

        return make_connected_backend(self.apple_device_conn_id, self.settings)

    def test_connection(self) -> tuple[bool, str]:
        """Look for the device, from where this runs: it hangs on one worker, and only there it is found.

        :returns: whether it is there and fit, and one sentence that says what is or what is not
        """
        from fastvlm_ops.core.coreml.devices.interface import Failure

        try:
            backend = self.get_conn()
        except ConnectionSettingError as error:
            return False, str(error)
        found = backend.discover()
        if isinstance(found, Failure):
            return False, f"{found.code}: {found.detail}"
        if hindrance := backend.preflight(found):
            return False, f"{hindrance.code}: {hindrance.detail}"
        return True, f"{found.model} with {found.os_version} ({found.os_build}) is connected."


def settings_of(connection: Connection) -> dict[str, str]:
    """Read and check a connection.

    :param connection: of type ``fastvlm_apple_device``
    :returns: ``identifier``, ``kind``, ``team``, ``profile``, ``bundle`` and ``salt``; empty where not given
    :raises ConnectionSettingError: a field is unknown or cannot be used
    """
    extra: dict[str, Any] = connection.extra_dejson
    if unknown := unknown_field(extra, _EXTRAS):
        raise ConnectionSettingError(connection.conn_id, unknown)
    if connection.port or connection.schema:
        raise ConnectionSettingError(
            connection.conn_id, "the fields port and schema are not read; empty them"
        )
    for name, value in extra.items():
        if value is not None and not isinstance(value, str):
            raise ConnectionSettingError(connection.conn_id, f"the field {name!r} is no text")
    kind = (extra.get("device_kind") or _KINDS[0]).lower()
    if kind not in _KINDS:
        message = f"the field 'device_kind' is {kind!r}; it must be one of {', '.join(_KINDS)}"
        raise ConnectionSettingError(connection.conn_id, message)
    settings = {
        "identifier": (connection.host or "").strip(),
        "kind": kind,
        "team": (connection.login or "").strip(),
        "profile": (extra.get("provisioning_profile_uuid") or "").strip(),
        "bundle": (extra.get("bundle_identifier") or "").strip(),
        "salt": connection.password or connection.conn_id,
    }
    _check_forms(connection.conn_id, settings)
    return settings


def _check_forms(conn_id: str, settings: dict[str, str]) -> None:
    """Refuse what has no known form here already, where the connection can be named."""
    from fastvlm_ops.core.coreml.devices.checks import (
        DEFAULT_BUNDLE,
        Signing,
        check_identifier,
        check_signing,
    )
    from fastvlm_ops.core.coreml.devices.trouble import DeviceTroubleError

    bundle = settings["bundle"] or DEFAULT_BUNDLE
    try:
        check_signing(Signing(team=settings["team"], profile=settings["profile"], bundle=bundle))
        if settings["identifier"]:
            check_identifier(settings["identifier"])
    except DeviceTroubleError as error:
        raise ConnectionSettingError(conn_id, error.failure.detail) from error
