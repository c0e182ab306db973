"""Gives Airflow its home, for the tests of code that uses it, and the fixtures such tests share."""

from hypothesis import HealthCheck, settings

import tests.airflow_home  # noqa: F401 - before anything imports Airflow
from tests.airflow_kit import connection, kit, published  # noqa: F401 - fixtures

# A busy machine fails no test: how long it takes to make or to try an example says nothing about the code.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")
