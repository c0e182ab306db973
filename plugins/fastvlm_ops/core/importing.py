"""Importing what is large, such as NumPy, in less time."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from fastvlm_ops.core.garbage import many_objects

_THREADS = "OPENBLAS_NUM_THREADS"


@contextmanager
def large_imports() -> Iterator[None]:
    """Keep what is imported from the collector of garbage, now and later: it stays as long as the process.

    NumPy's BLAS gets one thread, unless the environment says how many. The threads that it would start wait
    for work by running, and multiply no matrices for us. It reads the variable when it is loaded; programs
    that this one starts do not get it.

    Where nothing was left to import, nothing is kept: what stands in a cycle at that moment, such as a client
    and its connections, would never be freed.
    """
    known = len(sys.modules)
    is_set = _THREADS in os.environ
    with many_objects():
        os.environ.setdefault(_THREADS, "1")
        try:
            yield
        finally:
            if len(sys.modules) > known:
                gc.freeze()
            if not is_set:
                os.environ.pop(_THREADS, None)
