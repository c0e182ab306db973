"""Prometheus's answer to a range query, without a Python object for each of its millions of samples.

What is not exactly as Prometheus writes it is left to the general way, which knows what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


class _Entry(msgspec.Struct):
    metric: dict[str, str]
    values: msgspec.Raw


class _Data(msgspec.Struct, rename="camel"):
    result_type: Literal["matrix"]
    result: list[_Entry]


class _Answer(msgspec.Struct):
    status: Literal["success"]
    data: _Data
    warnings: list[str] | None = None
    infos: list[str] | None = None


_DECODER = msgspec.json.Decoder(_Answer)


def read_matrix(body: bytes) -> dict[str, Any] | None:
    """Return the document of an answer whose samples are still text: each entry's ``values`` is its part of
    the body. None where it is another answer, or none.

    :param body: as it came
    """
    try:
        answer = _DECODER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    result = [{"metric": entry.metric, "values": entry.values} for entry in answer.data.result]
    data = {"resultType": answer.data.result_type, "result": result}
    return {"status": answer.status, "data": data, "warnings": answer.warnings, "infos": answer.infos}


def read_samples(texts: Sequence[msgspec.Raw]) -> list[NDArray[np.float64]] | list[list[Any]]:
    """Return the samples of several series: times and values as two columns; where one of all is not simply a
    number, as lists.

    :param texts: one a series, as from :func:`read_matrix`
    :raises msgspec.DecodeError: one is no list
    """
    import pyarrow
    from pyarrow import csv

    lists = [bytes(text) for text in texts]
    counts = np.array([text.count(b"[") - 1 for text in lists])
    # As lines of two numbers all are read at once; a line that would be anything else is an error.
    lines = b"\n".join(
        text.translate(None, b'["').replace(b"],", b"\n").rstrip(b"]") for text in lists if len(text) > 2
    )
    try:
        table = csv.read_csv(
            pyarrow.py_buffer(lines),
            read_options=csv.ReadOptions(column_names=["time", "value"], use_threads=False),
            convert_options=csv.ConvertOptions(
                column_types={"time": pyarrow.float64(), "value": pyarrow.float64()},
                null_values=[],
                strings_can_be_null=False,
            ),
        )
    except pyarrow.ArrowInvalid:
        table = None
    if table is None or table.num_rows != counts.sum() or counts.min() < 0:
        return [msgspec.json.decode(text, type=list[Any]) for text in lists]
    columns = np.column_stack([table["time"].to_numpy(), table["value"].to_numpy()])
    return np.split(columns, np.cumsum(counts)[:-1])
