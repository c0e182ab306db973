"""Hook to a running service: what it consists of, and what starts and stops its parts."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException

from fastvlm_ops.hooks.connections import ConnectionSettingError, unknown_field

if TYPE_CHECKING:
    from airflow.sdk import Connection

    from fastvlm_ops.core.services.control import ServiceControl

_EXTRAS = ("database_conn_id",)


class ServiceSettings(NamedTuple):
    """The fields of a connection.

    :param address: of the service's control
    :param database_conn_id: connection with login and password of its databases; None where it has none
    """

    address: str
    database_conn_id: str | None


class ServiceHook(BaseHook):
    """Gives the control of the service behind a connection of type ``fastvlm_service``.

    :param service_conn_id: the connection; host is the address of the service's control, on the worker:
        ``unix:`` and the path of a supervisor's socket, or ``docker:`` and the address of a Docker engine;
        extra has ``database_conn_id``
    """

    conn_name_attr = "service_conn_id"
    default_conn_name = "fastvlm_service"
    conn_type = "fastvlm_service"
    hook_name = "FastVLM service"

    def __init__(self, service_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.service_conn_id = service_conn_id

    @cached_property
    def settings(self) -> ServiceSettings:
        """The connection's fields, checked.

        :raises ConnectionSettingError: the connection is missing, or a field is missing, unknown or wrong
        """
        try:
            connection = self.get_connection(self.service_conn_id)
        except AirflowNotFoundException:
            message = f"is not defined; create it with the type {self.conn_type}"
            raise ConnectionSettingError(self.service_conn_id, message) from None
        return settings_of(connection)

    def control(self) -> ServiceControl:
        """Return the control of the service. Nothing is asked yet.

        :raises ConnectionSettingError: the connection is missing, or a field is missing, unknown or wrong
        """
        from fastvlm_ops.core.services.connecting import connect_control
        from fastvlm_ops.core.services.control import ServiceControlError

        try:
            return connect_control(self.settings.address)
        except ServiceControlError as error:
            raise ConnectionSettingError(self.service_conn_id, f"the field host: {error}") from None

    def get_conn(self) -> ServiceControl:
        """Return the control of the service; Airflow's customary name for it."""
        return self.control()

    def test_connection(self) -> tuple[bool, str]:
        """Ask the service what it is, from where this runs: it has to be a worker that drills run on.

        :returns: whether it answers, and what it says that it is, or why it does not
        """
        from fastvlm_ops.core.services.control import ServiceControlError

        try:
            view = self.control().view()
        except (ConnectionSettingError, ServiceControlError) as error:
            return False, str(error)
        healthy = sum(one.healthy is True for one in view.instances)
        return True, (
            f"It says that it is {view.marker.service} in the environment {view.marker.environment}, with"
            f" {len(view.instances)} instances, of which {healthy} are healthy."
        )


def settings_of(connection: Connection) -> ServiceSettings:
    """Read and check a connection.

    :param connection: of type ``fastvlm_service``
    :raises ConnectionSettingError: a field is missing, unknown or wrong
    """
    extra: dict[str, Any] = connection.extra_dejson
    if unknown := unknown_field(extra, _EXTRAS):
        raise ConnectionSettingError(connection.conn_id, unknown)
    if connection.port or connection.schema or connection.login or connection.password:
        message = "the fields port, schema, login and password are not read; empty them"
        raise ConnectionSettingError(connection.conn_id, message)
    address = (connection.host or "").strip()
    if not address:
        message = (
            "the field host is empty; enter unix:/path/of/control.sock, or docker: and an engine's address"
        )
        raise ConnectionSettingError(connection.conn_id, message)
    database_conn_id = extra.get("database_conn_id") or None
    if database_conn_id is not None and not isinstance(database_conn_id, str):
        raise ConnectionSettingError(connection.conn_id, "the field 'database_conn_id' is no text")
    return ServiceSettings(address, database_conn_id)
