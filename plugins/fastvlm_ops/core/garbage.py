"""When Python's collector of garbage stands in the way."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def many_objects() -> Iterator[None]:
    """Put the collector off where a great many objects are made that stay: imports, descriptions, samples.

    It looks through them again and again and finds none, which takes up to twice the time of the work itself.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
