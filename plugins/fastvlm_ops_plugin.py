"""The Operations pages in Airflow's navigation: the one file of the package that Airflow loads from plugins/.

Every process of Airflow imports it, so it imports as little as it can: the pages come with the first request.
"""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin

from fastvlm_ops.ui import ICON, TITLE, URL_PREFIX, URL_ROUTE, LazyApp


class FastvlmOpsPlugin(AirflowPlugin):
    """Registers the pages and the link to them."""

    name = "fastvlm_ops"
    fastapi_apps = [{"app": LazyApp(), "url_prefix": URL_PREFIX, "name": "FastVLM Ops"}]  # noqa: RUF012
    external_views = [  # noqa: RUF012
        {
            "name": TITLE,
            # Relative: Airflow's page has a <base>, so this holds below a path like /airflow too.
            "href": f"{URL_PREFIX.lstrip('/')}/",
            "destination": "nav",
            "url_route": URL_ROUTE,
            "nav_top_level": True,
            "icon": ICON,
        }
    ]
