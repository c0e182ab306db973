"""Pictures of the running demo's UI, for the README. For developers: needs the dev group and a Chromium.

make demo && .venv/bin/python scripts/screenshots.py
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import BrowserContext, Page, sync_playwright

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
    arguments = parser.parse_args()
    facts = DemoState(arguments.state_dir).running()
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
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
