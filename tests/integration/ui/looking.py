"""What tests of all pages look for, and how they take away what a page needs."""

from __future__ import annotations

import shutil
from pathlib import Path

from playwright.sync_api import Page

from tests.integration.ui.rig import Rig

CONTRAST = (Path(__file__).parent / "contrast.js").read_text()
PHONE = {"width": 390, "height": 844}


def watched(page: Page, rig: Rig) -> list[str]:
    """Notes what a page must not do: fail, open a dialog, ask another host."""
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
    page.on("dialog", lambda dialog: (wrong.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    page.on(
        "request",
        lambda request: (
            None if request.url.startswith((rig.url, "data:", "blob:")) else wrong.append(request.url)
        ),
    )
    page.on(
        "console", lambda message: wrong.append(message.text) if "Security Policy" in message.text else None
    )
    return wrong


def is_dark(page: Page) -> bool:
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return sum(int(part) for part in background[4:-1].split(",")) < 3 * 80


class taken_away:
    """Moves a file aside for the time of a block."""

    def __init__(self, file: Path) -> None:
        self.file, self.aside = file, file.with_suffix(".aside")

    def __enter__(self) -> None:
        shutil.move(self.file, self.aside)

    def __exit__(self, *_: object) -> None:
        for left in self.file.parent.glob(f"{self.file.name}*"):
            left.unlink()
        shutil.move(self.aside, self.file)
