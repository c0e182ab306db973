"""States: a cache that one prediction writes and the next one reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fastvlm_ops.core.coreml.reference import ReferenceModel
from tests.unit.core.coreml.reference.programs import build

ROW = {"row": np.zeros((1, 2), np.float32), "at": np.zeros(1, np.int32)}


def _cache(mb: Any, row: Any, at: Any, cache: Any) -> Any:
    """Write a row of the cache, and sum all of it twice over: before and after a second write."""
    rows = mb.read_state(input=cache)
    end = mb.add(x=at, y=np.int32(1))
    written = mb.slice_update(
        x=rows,
        update=mb.cast(x=row, dtype="fp16"),
        begin=mb.concat(values=(at, np.array([0], np.int32)), axis=0),
        end=mb.concat(values=(end, np.array([2], np.int32)), axis=0),
    )
    kept = mb.coreml_update_state(state=cache, value=written)
    doubled = mb.coreml_update_state(state=cache, value=mb.mul(x=kept, y=np.float16(2)))
    sums = [mb.reduce_sum(x=one, axes=[0], keep_dims=False) for one in (kept, doubled)]
    return tuple(mb.cast(x=one, dtype="fp32") for one in sums)


def _model(tmp_path: Path) -> ReferenceModel:
    return ReferenceModel(build(tmp_path, ROW, _cache, target="iOS18", states={"cache": (3, 2)}))


def test_a_state_keeps_what_was_written_last(tmp_path: Path) -> None:
    model = _model(tmp_path)
    state = model.make_state()

    first = model.predict({"row": np.array([[1, 2]]), "at": np.array([0])}, state)
    second = model.predict({"row": np.array([[5, 7]]), "at": np.array([2])}, state)

    assert [value.tolist() for value in first.values()] == [[1, 2], [2, 4]]
    assert [value.tolist() for value in second.values()] == [[7, 11], [14, 22]]
    assert state["cache"].tolist() == [[4, 8], [0, 0], [10, 14]]


def test_without_a_state_each_prediction_starts_anew(tmp_path: Path) -> None:
    model = _model(tmp_path)
    inputs = {"row": np.array([[1, 2]]), "at": np.array([1])}

    assert [value.tolist() for value in model.predict(inputs).values()] == [[1, 2], [2, 4]]
    assert [value.tolist() for value in model.predict(inputs).values()] == [[1, 2], [2, 4]]
