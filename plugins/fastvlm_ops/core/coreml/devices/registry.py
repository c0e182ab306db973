"""Makes the backend that a device is declared with. Backends are imported when they are wanted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fastvlm_ops.core.coreml.devices.interface import BackendKind, DeviceBackend

if TYPE_CHECKING:
    from fastvlm_ops.core.config.coreml import ConditionRules, DeviceDefinition


def make_backend(
    definition: DeviceDefinition,
    *,
    connection: Mapping[str, Any] | None = None,
    conditions: ConditionRules | None = None,
) -> DeviceBackend:
    """Make a backend.

    :param definition: of the device
    :param connection: of a connected device: ``identifier``, ``kind``, ``team``, ``profile``, ``bundle`` and
        ``salt``, as the hook gives them; what is missing counts as empty
    :param conditions: that a device has to be in to be measured, where it tells
    """
    kind = BackendKind(definition.backend)
    if kind == BackendKind.LOCAL_MAC:
        from fastvlm_ops.core.coreml.devices.local_mac import LocalMacBackend

        return LocalMacBackend(definition.name, conditions=conditions)
    if kind == BackendKind.LINUX_REFERENCE:
        from fastvlm_ops.core.coreml.devices.linux_reference import LinuxReferenceBackend

        backend: DeviceBackend = LinuxReferenceBackend(definition.name)
        return backend
    return make_connected_backend(definition.name, connection or {})


def make_connected_backend(name: str, connection: Mapping[str, Any]) -> DeviceBackend:
    """Make the backend of a connected device.

    :param name: of the device
    :param connection: as in :func:`make_backend`
    """
    from fastvlm_ops.core.coreml.devices.checks import DEFAULT_BUNDLE, Signing
    from fastvlm_ops.core.coreml.devices.connected import ConnectedDeviceBackend

    values = {key: str(value) for key, value in connection.items() if value}
    signing = Signing(
        team=values.get("team", ""),
        profile=values.get("profile", ""),
        bundle=values.get("bundle", DEFAULT_BUNDLE),
    )
    return ConnectedDeviceBackend(
        name,
        identifier=values.get("identifier", ""),
        kind=values.get("kind", "iphone"),
        signing=signing,
        salt=values.get("salt", ""),
    )
