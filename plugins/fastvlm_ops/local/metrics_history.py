"""Half a year of metrics of a kit that never ran, as Prometheus would have scraped them every five minutes.

The same seed and end give the same samples. Each service has something that a forecast has to cope with:
growth, a level shift, a gap, restarts of a counter, a weekly peak, three days of history only, or an end.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Times = NDArray[np.int64]

DAYS = 180
STEP_SECONDS = 300
_DAY = 86_400
_MONDAY = 3  # days from 1970-01-01, a Thursday, back to a Monday


@dataclass(frozen=True)
class Service:
    """How a service was used. Days count back from the end of the history.

    :param name: value of the label ``service``
    :param requests: per second, on an average hour of a weekday at the end
    :param daily: of an average hour, how much the busiest lies above and the quietest below
    :param weekend: of a weekday, how much a Saturday or Sunday has
    :param peak_hour: of the day, in UTC
    :param growth: of the use at the end, how much came in the last 180 days
    :param noise: relative standard deviation of each sample
    :param replicas: as (from day, number)
    :param requests_each: that one replica can serve, per second
    :param memory: percent at the beginning, and how many of it each day adds until the next restart
    :param since: the first day; None for the whole history
    :param gone: the day on which it was deleted
    :param shift: the day on which the use changed at once, and by which factor
    :param gap: the day on which nothing was scraped any more, and for how many days
    :param restart_days: between deployments, which restart counters
    :param release: of the use, how much the six hours after a release on Tuesday add
    """

    name: str
    requests: float
    daily: float = 0.5
    weekend: float = 0.7
    peak_hour: float = 14
    growth: float = 0
    noise: float = 0.05
    replicas: tuple[tuple[float, int], ...] = ((DAYS, 2),)
    requests_each: float = 50
    memory: tuple[float, float] = (50, 0)
    since: float | None = None
    gone: float = 0
    shift: tuple[float, float] | None = None
    gap: tuple[float, float] | None = None
    restart_days: float = 30
    release: float = 0


SERVICES = (
    Service(
        "vlm-api",
        requests=120,
        growth=0.5,
        weekend=0.55,
        replicas=((DAYS, 3), (70, 4)),
        memory=(58, 0.15),
        restart_days=21,
    ),
    Service(
        "vlm-text", requests=55, daily=0.6, peak_hour=19, weekend=1.1, shift=(40, 1.8), replicas=((DAYS, 2),)
    ),
    Service(
        "model-delivery",
        requests=20,
        daily=0.3,
        weekend=0.8,
        release=1.8,
        memory=(35, 0.9),
        restart_days=28,
        requests_each=40,
    ),
    Service(
        "telemetry-gateway",
        requests=15,
        daily=0.2,
        weekend=0.9,
        noise=0.1,
        gap=(60, 3),
        replicas=((DAYS, 4),),
        memory=(22, 0),
    ),
    Service("vlm-video", requests=12, growth=0.3, since=3, requests_each=10),
    Service("vlm-legacy", requests=18, growth=-1, gone=20, requests_each=30),
)


class _Family(NamedTuple):
    """A metric, as OpenMetrics describes it."""

    name: str
    kind: str
    text: str
    digits: int

    @property
    def sample(self) -> str:
        return f"{self.name}_total" if self.kind == "counter" else self.name


_FAMILIES = (
    _Family("fastvlm_cpu_usage_percent", "gauge", "CPU used, of what the replicas have.", 2),
    _Family("fastvlm_memory_usage_percent", "gauge", "Memory used, of what the replicas have.", 2),
    _Family("fastvlm_requests", "counter", "Requests that were served.", 0),
    _Family("fastvlm_request_capacity", "gauge", "Requests per second that the replicas can serve.", 0),
    _Family("fastvlm_replicas", "gauge", "Replicas that run.", 0),
)


def write_history(
    file: Path,
    *,
    end: datetime,
    days: float = DAYS,
    services: Sequence[Service] = SERVICES,
    step_seconds: int = STEP_SECONDS,
    seed: int = 1,
    metrics: Collection[str] | None = None,
) -> int:
    """Write a history in OpenMetrics' text format, which promtool makes blocks of.

    :param file: to write
    :param end: an aware time; the last sample is before it
    :param days: how long it is
    :param services: what is in it
    :param step_seconds: between samples
    :param seed: of the noise
    :param metrics: names of the metrics to write, without ``_total``; None for all
    :returns: the number of samples
    :raises ValueError: the end is a naive time
    """
    if end.utcoffset() is None:
        raise ValueError(f"end is {end.isoformat()}, which names no time zone")
    last = int(end.timestamp()) // step_seconds * step_seconds
    samples = {service.name: _samples(service, last, days, step_seconds, seed) for service in services}
    families = [family for family in _FAMILIES if metrics is None or family.name in metrics]
    count = 0
    with file.open("w") as output:
        for family in families:
            output.write(f"# TYPE {family.name} {family.kind}\n# HELP {family.name} {family.text}\n")
            for service in services:
                times, values = samples[service.name]
                head = f'{family.sample}{{service="{_escaped(service.name)}"}}'
                output.writelines(_lines(head, times, values[family.name], family.digits))
                count += len(times)
        output.write("# EOF\n")
    return count


def read_back(
    service: Service,
    *,
    end: datetime,
    metric: str,
    days: float = DAYS,
    step_seconds: int = STEP_SECONDS,
    seed: int = 1,
) -> tuple[Times, Floats]:
    """Return what :func:`write_history` writes of one service and metric, as it is written.

    :param service: of the history
    :param end: of the history, an aware time
    :param metric: name of the metric, without ``_total``
    :param days: how long the history is
    :param step_seconds: between samples
    :param seed: of the noise
    :returns: times, in seconds since 1970, and values
    """
    last = int(end.timestamp()) // step_seconds * step_seconds
    times, values = _samples(service, last, days, step_seconds, seed)
    (digits,) = (family.digits for family in _FAMILIES if family.name == metric)
    return times, np.round(values[metric], digits)


def _lines(head: str, times: Times, values: Floats, digits: int) -> Iterator[str]:
    for time, value in zip(times.tolist(), values.tolist(), strict=True):
        yield f"{head} {value:.{digits}f} {time}\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _samples(
    service: Service, end: int, days: float, step: int, seed: int
) -> tuple[Times, dict[str, Floats]]:
    """Return the times of a service's samples, in seconds since 1970, and their values by metric."""
    first = end - round(min(days, service.since or days) * _DAY) // step * step
    times = np.arange(first, end - round(service.gone * _DAY), step, dtype=np.int64)
    before_end = (end - times) / _DAY
    noise = np.random.default_rng([seed, *service.name.encode()])
    rate = _rate(service, times, before_end, noise)
    replicas = np.full(len(times), float(service.replicas[0][1]))
    for since, number in service.replicas:
        replicas[before_end <= since] = number
    capacity = replicas * service.requests_each
    started = np.floor(before_end / service.restart_days)
    age = service.restart_days - before_end % service.restart_days
    values = {
        "fastvlm_requests": _counter(rate * step, started),
        "fastvlm_request_capacity": capacity,
        "fastvlm_replicas": replicas,
        "fastvlm_cpu_usage_percent": np.clip(
            4 + 82 * rate / capacity + noise.normal(0, 1.2, len(times)), 0.5, 100
        ),
        "fastvlm_memory_usage_percent": np.clip(
            service.memory[0]
            + service.memory[1] * age
            + 12 * rate / capacity
            + noise.normal(0, 0.6, len(times)),
            1,
            100,
        ),
    }
    kept = np.ones(len(times), bool)
    if service.gap is not None:
        since, length = service.gap
        kept = (before_end > since) | (before_end <= since - length)
    return times[kept], {name: value[kept] for name, value in values.items()}


def _rate(service: Service, times: Times, before_end: Floats, noise: np.random.Generator) -> Floats:
    """Return requests per second."""
    hour = times % _DAY / 3600
    weekday = (times // _DAY + _MONDAY) % 7
    shape = 1 + service.daily * np.cos((hour - service.peak_hour) * np.pi / 12)
    rate = service.requests * shape * np.where(weekday >= 5, service.weekend, 1)
    rate *= np.maximum(1 - service.growth * before_end / DAYS, 0.05)
    if service.release:
        since_release = hour - 9
        during = (weekday == 1) & (since_release >= 0) & (since_release < 6)
        rate *= 1 + np.where(during, service.release * np.exp(-since_release / 2), 0)
    if service.shift is not None:
        day, factor = service.shift
        rate /= np.where(before_end > day, factor, 1)
    return np.asarray(rate * np.exp(noise.normal(0, service.noise, len(times))), np.float64)


def _counter(increments: Floats, started: Floats) -> Floats:
    """Return the running sum, which begins again at each restart."""
    total = np.cumsum(np.round(increments))
    restarts = np.flatnonzero(np.diff(started)) + 1
    before = np.zeros(len(total))
    before[restarts] = np.diff(np.concatenate([[0.0], total[restarts - 1]]))
    return total - np.cumsum(before)
