"""One session of the benchmark's own workload: a convolution in NumPy, timed as a model is.

    python -m benchmarks.coreml_worker

Prints JSON: the time of each of the timed predictions, in milliseconds: by the clock, and of the processor.
"""

from __future__ import annotations

import json
import os
import time

import numpy as np

WARM_UP, ITERATIONS = 5, 20
_SIZE, _CHANNELS, _KERNEL = 66, 48, 3


def main() -> None:
    """Run it on one core, the last one that is allowed."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    generator = np.random.default_rng(1)
    image = generator.normal(size=(_CHANNELS, _SIZE, _SIZE)).astype(np.float32)
    kernel = generator.normal(size=(_CHANNELS, _CHANNELS * _KERNEL * _KERNEL)).astype(np.float32)
    by_clock, of_processor = [], []
    for _ in range(WARM_UP + ITERATIONS):
        start, used = time.perf_counter(), time.thread_time()
        windows = np.lib.stride_tricks.sliding_window_view(image, (_KERNEL, _KERNEL), axis=(1, 2))
        columns = windows.transpose(0, 3, 4, 1, 2).reshape(kernel.shape[1], -1)
        np.maximum(kernel @ columns, 0)
        by_clock.append(1e3 * (time.perf_counter() - start))
        of_processor.append(1e3 * (time.thread_time() - used))
    print(json.dumps({"clock_ms": by_clock[WARM_UP:], "processor_ms": of_processor[WARM_UP:]}))


if __name__ == "__main__":
    main()
