"""The plugin file: imported by every process of Airflow, so it brings next to nothing with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from fastvlm_ops.ui import URL_PREFIX, URL_ROUTE
from tests.airflow_home import ROOT

PROBE = """
import json, runpy, sys, time
import airflow.plugins_manager
before, began = set(sys.modules), time.process_time()
runpy.run_path(sys.argv[1])
print(json.dumps({"seconds": time.process_time() - began, "new": sorted(set(sys.modules) - before)}))
"""


def test_importing_it_imports_only_itself() -> None:
    file = ROOT / "plugins" / "fastvlm_ops_plugin.py"
    done = subprocess.run(
        [sys.executable, "-c", PROBE, str(file)], capture_output=True, text=True, check=True, env=os.environ
    )
    found = json.loads(done.stdout.splitlines()[-1])
    ours = [name for name in found["new"] if name.startswith("fastvlm_ops")]
    assert "fastvlm_ops.ui" in ours
    assert set(ours) <= {"fastvlm_ops", "fastvlm_ops.ui"}
    # Nothing else of weight: with the standard library's own, what it costs stays far below the budget.
    assert not {"fastapi", "jinja2", "sqlalchemy", "boto3"} & {name.split(".")[0] for name in found["new"]}
    assert found["seconds"] < 0.1


def test_airflow_finds_it_and_nothing_else_in_the_folder() -> None:
    from airflow import plugins_manager

    plugins, errors = plugins_manager._get_plugins()
    assert errors == {}
    (plugin,) = [found for found in plugins if found.name == "fastvlm_ops"]
    assert [app["url_prefix"] for app in plugin.fastapi_apps] == [URL_PREFIX]
    (view,) = plugin.external_views
    assert view["url_route"] == URL_ROUTE
    assert view["destination"] == "nav"
    assert not view["href"].startswith("/")


def test_everything_that_templates_and_pages_name_is_there() -> None:
    from fastvlm_ops.ui.app import _STATIC
    from fastvlm_ops.ui.render import _ENVIRONMENT, FOLDER

    # Pictures of a drill are shared with its report, which is not rendered here.
    own = {str(path.relative_to(FOLDER / "templates")) for path in (FOLDER / "templates").rglob("*.html")}
    assert own <= set(_ENVIRONMENT.list_templates())
    for name in own:
        _ENVIRONMENT.get_template(name)  # compiles, with every filter it uses
    for name, (folder, _) in _STATIC.items():
        assert (folder / name).is_file()
    static = FOLDER / "static"
    own = {name for name, (folder, _) in _STATIC.items() if folder == static}
    assert {path.name for path in static.iterdir()} == own
    assert _ENVIRONMENT.autoescape is True
