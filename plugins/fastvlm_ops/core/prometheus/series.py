"""What is answered: series as arrays, chunks joined, duplicates gone, and their table by hour."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from fastvlm_ops.core.prometheus.asking import HOUR_MS
from fastvlm_ops.core.prometheus.errors import PrometheusAnswerError, PrometheusQueryError
from fastvlm_ops.core.prometheus.matrix import read_samples

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    Arrays = tuple[NDArray[np.int64], NDArray[np.float64]]

# What tells apart only who recorded a sample, not what it is of: Prometheus pairs, Thanos, Mimir, Cortex.
REPLICA_LABELS = frozenset(
    {"replica", "__replica__", "prometheus_replica", "receive_replica", "rule_replica", "thanos_replica"}
)


@dataclass(frozen=True, eq=False)
class Series:
    """One series.

    :param labels: by name
    :param times_ms: ascending, no two alike, in milliseconds since 1970
    :param values: at these times; NaN where the server gave none, or none that is a finite number
    """

    labels: Mapping[str, str]
    times_ms: NDArray[np.int64]
    values: NDArray[np.float64]


class SeriesList(list[Series]):
    """Series, with what the server said about them.

    :param series: the series
    :param notes: the server's warnings, of an answer that was taken in spite of them, and its infos
    """

    def __init__(self, series: Iterable[Series] = (), notes: Sequence[str] = ()) -> None:
        super().__init__(series)
        self.notes = tuple(notes)


def read_result(results: Iterable[Any]) -> list[Series]:
    """Read the ``data.result`` of one or several answers; a series that is in several is joined.

    :param results: of range queries, or of an instant one: a list of series, or a bare ``[time, value]``
    :raises PrometheusAnswerError: it has another shape, as that of native histograms
    """
    samples: dict[tuple[tuple[str, str], ...], list[Arrays]] = {}
    try:
        for result in results:
            for labels, values in _labelled(result):
                samples.setdefault(tuple(sorted(labels.items())), []).append(_arrays(values))
        return [_series(dict(labels), samples[labels]) for labels in sorted(samples)]
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, msgspec.DecodeError) as error:
        raise PrometheusAnswerError(
            f"the answer has no samples as Prometheus gives them ({type(error).__name__}: {error});"
            " are these native histograms, or is it another server?"
        ) from error


def _labelled(result: Any) -> Iterable[tuple[dict[str, str], Any]]:
    if isinstance(result, list) and len(result) == 2 and not isinstance(result[0], dict):
        return [({}, [result])]  # a scalar
    labels = [entry["metric"] for entry in result]
    samples: list[Any] = [entry["values"] if "values" in entry else [entry["value"]] for entry in result]
    if samples and all(isinstance(values, msgspec.Raw) for values in samples):
        return zip(labels, read_samples(samples), strict=True)
    return zip(labels, samples, strict=True)


def _arrays(samples: Any) -> Arrays:
    """Times in milliseconds, and values."""
    if not len(samples):
        return np.empty(0, np.int64), np.empty(0, np.float64)
    if isinstance(samples, np.ndarray):
        seconds, values = samples[:, 0], samples[:, 1].copy()
        values[~np.isfinite(values)] = np.nan
    else:
        times, texts = zip(*samples, strict=True)
        seconds, values = np.array(times, np.float64), _numbers(texts)
    if not np.isfinite(seconds).all():
        raise ValueError("a sample has no time")
    return np.rint(seconds * 1000).astype(np.int64), values


def _series(labels: dict[str, str], parts: list[Arrays]) -> Series:
    times, values = (np.concatenate(found) for found in zip(*parts, strict=True))
    return Series(labels, *_unique(times, values))


def _numbers(texts: Sequence[Any]) -> NDArray[np.float64]:
    try:
        values = np.fromiter(map(float, texts), np.float64, len(texts))
    except ValueError:
        values = np.fromiter(map(_number, texts), np.float64, len(texts))
    values[~np.isfinite(values)] = np.nan
    return values


def _number(text: Any) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")  # such as "stale": no value, which is not 0


def _unique(
    times: NDArray[np.int64], values: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Sort by time; of samples of one time, the first that has a value stays."""
    if len(times) < 2 or bool((np.diff(times) > 0).all()):
        return times, values
    order = np.lexsort((np.isnan(values), times))  # stable: among equals, as they came
    times, values = times[order], values[order]
    first = np.concatenate([[True], np.diff(times) > 0])
    return times[first], values[first]


def hour_table(series: Sequence[Series], start_ms: int, end_ms: int, label: str) -> pd.DataFrame:
    """Return a table of hours by the values of a label.

    A sample taken at the very end of an hour, or in it, belongs to that hour: one at 13:00 is of the hour
    that begins at 12:00.

    :param series: one of each value of the label, or several that differ in who recorded them only
    :param start_ms: first hour, in milliseconds since 1970
    :param end_ms: the hour after the last
    :param label: name of the label
    :raises PrometheusQueryError: a series lacks the label, or two of one value are not the same thing
    """
    import pandas as pd

    first, count = start_ms // HOUR_MS, (end_ms - start_ms) // HOUR_MS
    columns: dict[str, NDArray[np.float64]] = {}
    for name, members in sorted(_by_label(series, label).items()):
        column = columns[name] = np.full(count, np.nan)
        for member in members:
            hours = -(-member.times_ms // HOUR_MS) - 1 - first
            inside = (hours >= 0) & (hours < count) & ~np.isnan(member.values)
            hours, values = hours[inside], member.values[inside]
            empty = np.isnan(column[hours])  # what another replica has recorded stays
            column[hours[empty]] = values[empty]
    index = pd.to_datetime((first + np.arange(count)) * HOUR_MS, unit="ms", utc=True)
    return pd.DataFrame(columns, index=index.rename("hour"), dtype=float).rename_axis(columns=label)


def _by_label(series: Sequence[Series], label: str) -> dict[str, list[Series]]:
    found: dict[str, list[Series]] = {}
    for member in series:
        if not (name := member.labels.get(label)):
            raise PrometheusQueryError(
                f"the query gives a series without the label {label!r}: {dict(member.labels)};"
                f" aggregate by ({label})"
            )
        others = found.setdefault(name, [])
        if others and (differing := _differing(others[0].labels, member.labels) - REPLICA_LABELS):
            raise PrometheusQueryError(
                f"the query gives several series of {label} {name!r}, which differ in"
                f" {', '.join(sorted(differing))}; aggregate by ({label})"
            )
        others.append(member)
    return found


def _differing(one: Mapping[str, str], other: Mapping[str, str]) -> set[str]:
    return {name for name in one.keys() | other.keys() if one.get(name) != other.get(name)}
