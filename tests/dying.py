"""Runs code that dies, as by a power cut, before one of the changes that it makes to files."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_CHANGES = frozenset(
    {"os.rename", "os.link", "os.symlink", "os.mkdir", "os.rmdir", "os.remove", "os.truncate", "os.chmod"}
)


class Dead(BaseException):
    """What is raised by every change after the one that was not made: a dead process cleans nothing up."""


class _Hook:
    def __init__(self) -> None:
        self.left: int | None = None
        self.seen = 0

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.left is None:
            return
        opens = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wxa+")
        if event in _CHANGES or opens or (event == "open" and arguments[1] is None and arguments[2] & 3):
            self.seen += 1
            if self.seen > self.left:
                raise Dead


_hook = _Hook()
_installed = False


@contextmanager
def dying_after(changes: int) -> Iterator[None]:
    """Let so many changes to files happen, and raise :class:`Dead` from then on."""
    global _installed
    if not _installed:
        sys.addaudithook(_hook)  # can never be removed, so there is one for all tests
        _installed = True
    _hook.left, _hook.seen = changes, 0
    try:
        yield
    finally:
        _hook.left = None


def every_death(run: Callable[[], object]) -> Iterator[int]:
    """Run something again and again, each time dead one change later; yield after each death, with how many
    changes were made. The caller puts all back between. Ends when it has lived to its end.
    """
    for changes in range(1000):
        try:
            with dying_after(changes):
                run()
        except Dead:
            yield changes
        else:
            assert changes > 0, "it changes nothing"
            return
    raise AssertionError("it never comes to its end")
