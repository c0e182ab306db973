"""An Airflow and a Chromium for the tests of the pages, anew for each file of them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, expect, sync_playwright

import tests.airflow_home  # noqa: F401 - before anything imports Airflow
from fastvlm_ops.local.airflow_stack import USER
from scripts.screenshots import FLAGS
from tests import drill_kit
from tests.integration.ui import benchmarks, drills, forecasts, history, maintenance, recovering, spending
from tests.integration.ui.rig import Rig

Visit = Callable[..., BrowserContext]

expect.set_options(
    timeout=20_000
)  # milliseconds; a busy machine is no failure of a page, bench-ui times them


@pytest.fixture(scope="module")  # one of them stops its S3 server
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """Airflow with a real backup and sixty older ones in the catalogue; forecasts, scores, benchmarks."""
    rig = Rig(tmp_path_factory.mktemp("ui"))
    try:
        rig.start()
        history.back_up(rig)
        history.add_rows(rig, 60)
        rig.damaged_set = maintenance.add_maintenance(rig)
        spending.add_spending(rig)
        rig.recoverable_until = recovering.add_windows(rig)
        forecasts.forecast(rig)
        forecasts.add_scores(rig)
        benchmarks.add_definitions(rig.folder / "include")
        benchmarks.add_runs(rig.database)
        drills.add_drills(rig, stories=[drill_kit.KILLED])
        yield rig
    finally:
        rig.stop()


@pytest.fixture(scope="module")  # as long as it is there, nothing else can run an event loop
def chromium() -> Iterator[Browser]:
    """A Chromium; its absence is a failure, for these tests are what the pages are trusted for."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert program, "no Chromium is installed: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, headless=True, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def visit(rig: Rig, chromium: Browser) -> Iterator[Visit]:
    """Opens a window for a user, who is signed in as by Airflow's login page; None is signed out."""
    contexts: list[BrowserContext] = []

    def new_context(user: str | None = USER, **options: Any) -> BrowserContext:
        context = chromium.new_context(**({"viewport": {"width": 1280, "height": 900}} | options))
        context.set_default_timeout(20_000)
        contexts.append(context)
        if user is not None:
            with rig.client(user) as client:
                token = client.cookies["_token"]
            context.add_cookies([{"name": "_token", "value": token, "url": rig.url}])
        return context

    yield new_context
    for context in contexts:
        context.close()
