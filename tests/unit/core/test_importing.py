"""What is kept from the collector of garbage while importing, and what is not."""

from __future__ import annotations

import gc
import sys
import weakref
from pathlib import Path

import pytest

from fastvlm_ops.core.importing import large_imports


class Cycle:
    def __init__(self) -> None:
        self.itself = self


def test_what_stands_in_a_cycle_is_freed_after_an_import_that_was_done_already() -> None:
    cycle = Cycle()
    freed = weakref.ref(cycle)
    with large_imports():
        import json  # noqa: F401
    del cycle
    gc.collect()
    assert freed() is None


def test_what_is_imported_is_not_looked_through_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a_large_module.py").write_text("parts = [[number] for number in range(10_000)]\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "a_large_module", raising=False)
    before = gc.get_freeze_count()
    with large_imports():
        assert not gc.isenabled()
        import a_large_module  # type: ignore[import-not-found]
    assert gc.isenabled()
    assert gc.get_freeze_count() > before + 10_000
    assert len(a_large_module.parts) == 10_000
    gc.unfreeze()
