"""Pictures of the running demo's UI, for the README. For developers: needs the dev group and a Chromium.

make demo && .venv/bin/python -m scripts.screenshots
.venv/bin/python -m scripts.screenshots --operations   # starts what it needs itself
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from fastvlm_ops.local.airflow_api import AirflowClient
from fastvlm_ops.local.state import DEFAULT, DemoState

ROOT = Path(__file__).resolve().parents[1]
# No calls to anybody but the server on loopback.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-proxy-server",
]
SIZE = {"width": 1480, "height": 780}


def main() -> int:
    """Log in to the running demo and save pictures of it."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--state-dir", type=Path, default=ROOT / DEFAULT)
    parser.add_argument("--output", type=Path, default=ROOT / "docs/images")
    parser.add_argument("--operations", action="store_true", help="of the Operations pages instead")
    arguments = parser.parse_args()
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if arguments.operations and browser:
        return _operations(browser, arguments.output)
    facts = DemoState(arguments.state_dir).running()
    if facts is None or browser is None:
        print("no demo is up: make demo" if facts is None else "no Chromium is installed", file=sys.stderr)
        return 1
    with AirflowClient(facts["url"], facts["user"], facts["password"]) as airflow:
        run_id = str(airflow.runs("backup_full")[0]["dag_run_id"])
    arguments.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as profile, sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            profile, executable_path=browser, headless=True, args=FLAGS, viewport=SIZE, color_scheme="light"
        )
        _log_in(context, facts)
        run = f"/dags/backup_full/runs/{run_id}"
        _picture(context.pages[0], f"{facts['url']}/dags", arguments.output / "demo-dags.png")
        _picture(context.pages[0], f"{facts['url']}{run}", arguments.output / "demo-backup-run.png")
        context.close()
    return 0


def _operations(program: str, output: Path) -> int:
    """Start Airflow with two months of everything, and save pictures of the Operations pages."""
    from fastvlm_ops.ui import addresses
    from tests import drill_kit
    from tests.integration.ui import benchmarks, drills, forecasts, history, maintenance, spending
    from tests.integration.ui.rig import PASSWORDS, Rig

    with tempfile.TemporaryDirectory(dir=ROOT / ".pytest_cache") as folder, sync_playwright() as playwright:
        rig = Rig(Path(folder))
        browser = playwright.chromium.launch(executable_path=program, headless=True, args=FLAGS)
        facts = {"url": rig.url, "user": "admin", "password": PASSWORDS["admin"]}
        try:
            rig.start()
            history.back_up(rig)
            history.add_rows(rig, 60)
            maintenance.add_maintenance(rig)
            spending.add_spending(rig)
            forecasts.forecast(rig)
            forecasts.add_scores(rig)
            benchmarks.add_definitions(rig.folder / "include")
            benchmarks.add_runs(rig.database, [story for story in benchmarks.STORIES if story.is_likely])
            drills.add_drills(rig, stories=drill_kit.STORIES[:-1])
            inside, pages = f"{rig.url}/plugin/operations/fastvlm-ops", f"{rig.url}/fastvlm-ops"
            _operations_picture(browser, facts, f"{inside}/backups", output / "operations-backups.png")
            detail = f"/backups/{history.REAL_SET}"
            _operations_picture(browser, facts, f"{inside}{detail}", output / "operations-detail.png")
            _operations_picture(
                browser, facts, f"{inside}/backups/pruning", output / "operations-pruning.png"
            )
            series = f"{inside}/capacity/{forecasts.key(forecasts.GROWING)}/cpu"
            _operations_picture(browser, facts, series, output / "operations-capacity.png")
            _operations_picture(browser, facts, f"{inside}/coreml", output / "operations-coreml.png")
            detail = benchmarks.REGRESSED.address()
            trend = output / "operations-coreml-trend.png"
            high = {"viewport": {"width": 1400, "height": 1210}}
            _operations_picture(browser, facts, f"{inside}{detail}", trend, **high)
            _operations_picture(
                browser, facts, f"{inside}/disaster_recovery", output / "operations-drills.png"
            )
            drill = f"{inside}{addresses.drill(drills.run_key(drill_kit.PRIMARY))}"
            _operations_picture(browser, facts, drill, output / "operations-drill.png", **high)
            phone = {
                "viewport": {"width": 390, "height": 844},
                "device_scale_factor": 2,
                "color_scheme": "dark",
            }
            _operations_picture(
                browser, facts, f"{pages}/backups", output / "operations-dark-phone.png", **phone
            )
        finally:
            browser.close()
            rig.stop()
    return 0


def _operations_picture(
    browser: Browser, facts: dict[str, str], url: str, file: Path, **options: object
) -> None:
    context = browser.new_context(**({"viewport": {"width": 1400, "height": 940}} | options))  # type: ignore[arg-type]
    context.new_page()
    _log_in(context, facts)
    _picture(context.pages[0], url, file)
    context.close()


def _log_in(context: BrowserContext, facts: dict[str, str]) -> None:
    page = context.pages[0]
    page.goto(facts["url"])
    page.get_by_label("Username").fill(facts["user"])
    page.locator("input[type=password]").fill(facts["password"])
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(lambda url: "/auth/" not in url)


def _picture(page: Page, url: str, file: Path) -> None:
    page.goto(url)
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(2000)  # the graph is laid out after its data came
    page.screenshot(path=file)
    print(file)


if __name__ == "__main__":
    sys.exit(main())
