"""Gives Airflow its home, for the tests of code that uses it, and the fixtures such tests share."""

import tests.airflow_home  # noqa: F401 - before anything imports Airflow
from tests.airflow_kit import connection, kit  # noqa: F401 - fixtures
