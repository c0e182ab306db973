"""Asks Prometheus for series."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from prometheus_api_client import PrometheusConnect
from urllib3.util.retry import Retry

from fastvlm_ops.core.garbage import many_objects
from fastvlm_ops.core.prometheus.asking import HOUR_MS, chunks, milliseconds, seconds_text
from fastvlm_ops.core.prometheus.errors import PartialResultError, PrometheusAnswerError, PrometheusQueryError
from fastvlm_ops.core.prometheus.series import SeriesList, hour_table, read_result
from fastvlm_ops.core.prometheus.session import CheckedSession, ServerSettings

if TYPE_CHECKING:
    from types import TracebackType

    import pandas as pd

_LOG = logging.getLogger(__name__)


class PrometheusClient:
    """A client for one thread. All it raises is a :class:`PrometheusError`.

    :param settings: of the server
    """

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._session = CheckedSession(settings)
        self.connect = PrometheusConnect(
            url=settings.url.rstrip("/"),
            session=self._session,
            retry=Retry(0, read=False),  # the session does that, for every verb
            method=settings.method,
        )

    def __enter__(self) -> PrometheusClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close its connections."""
        self.connect.close()

    def query_range(
        self,
        query: str,
        start: datetime,
        end: datetime,
        step_seconds: float,
        *,
        allow_partial: bool = False,
    ) -> SeriesList:
        """Evaluate a query at start, start + step, ... up to the end, in as many requests as that takes.

        :param query: PromQL
        :param start: an aware time, the first point
        :param end: an aware time; a point too where a step hits it
        :param step_seconds: between points, in seconds
        :param allow_partial: whether an answer that may lack data is taken; its notes are kept and logged
        :raises PartialResultError: the server says that the answer may lack data
        :raises PrometheusError: it cannot be asked or answers with an error
        """
        step_ms = round(step_seconds * 1000)
        start_ms, end_ms = milliseconds("start", start), milliseconds("end", end)
        return self._range(query, start_ms, end_ms, step_ms, allow_partial)

    def instant(self, query: str, at: datetime, *, allow_partial: bool = False) -> SeriesList:
        """Evaluate a query at one time.

        :param query: PromQL
        :param at: an aware time
        :param allow_partial: as in :meth:`query_range`
        :returns: series of one sample each; a scalar is a series without labels
        :raises PartialResultError: the server says that the answer may lack data
        :raises PrometheusError: it cannot be asked or answers with an error
        """
        params = {"time": seconds_text(milliseconds("at", at)), **self._limit()}

        def ask() -> list[Any]:
            return [self.connect.custom_query(query, params=params)]

        return self._ask(query, ask, allow_partial)

    def hourly(
        self,
        query: str,
        start: datetime,
        end: datetime,
        *,
        label: str = "service",
        allow_partial: bool = False,
    ) -> pd.DataFrame:
        """Evaluate a query over each hour from start to end, as in ``avg_over_time(metric[1h])``.

        The row of 12:00 is the query in the last millisecond before 13:00, so that ``[1h]`` covers the hour
        from 12:00 to 13:00, and no sample of 13:00 or later is seen.

        :param query: PromQL that gives one series for each value of the label
        :param start: an aware time on a full hour of UTC
        :param end: the same; the last row is of the hour before it
        :param label: whose values become the columns
        :param allow_partial: as in :meth:`query_range`; the notes are in ``attrs["notes"]``
        :returns: all hours, in UTC, by the label's values in order; NaN where there is no data
        :raises PartialResultError: the server says that the answer may lack data
        :raises PrometheusError: it cannot be asked or answers with an error
        """
        start_ms, end_ms = milliseconds("start", start), milliseconds("end", end)
        for name, moment in (("start", start_ms), ("end", end_ms)):
            if moment % HOUR_MS:
                raise PrometheusQueryError(f"{name} is not on a full hour of UTC")
        if end_ms <= start_ms:
            raise PrometheusQueryError("end is not after start")
        series = self._range(query, start_ms + HOUR_MS - 1, end_ms - 1, HOUR_MS, allow_partial)
        frame = hour_table(series, start_ms, end_ms, label)
        frame.attrs["notes"] = list(series.notes)
        return frame

    def _range(self, query: str, start_ms: int, end_ms: int, step_ms: int, allow_partial: bool) -> SeriesList:
        def ask() -> list[Any]:
            return [
                self.connect.custom_query_range(
                    query,
                    datetime.fromtimestamp(chunk.start_ms / 1000, UTC),
                    datetime.fromtimestamp(chunk.end_ms / 1000, UTC),
                    seconds_text(step_ms),
                    # The library rounds times to seconds; these take their place.
                    params={
                        "start": seconds_text(chunk.start_ms),
                        "end": seconds_text(chunk.end_ms),
                        **self._limit(),
                    },
                )
                for chunk in chunks(start_ms, end_ms, step_ms)
            ]

        return self._ask(query, ask, allow_partial)

    def _ask(self, query: str, ask: Callable[[], list[Any]], allow_partial: bool) -> SeriesList:
        if not query.strip():
            raise PrometheusQueryError("the query is empty")
        self._session.warnings.clear()
        self._session.infos.clear()
        try:
            results = ask()
        except (KeyError, TypeError) as error:  # the library found no data.result
            raise PrometheusAnswerError("the answer has no data.result as Prometheus gives it") from error
        warnings, infos = (
            tuple(dict.fromkeys(said)) for said in (self._session.warnings, self._session.infos)
        )
        if warnings and not allow_partial:
            raise PartialResultError(warnings)
        # The infos of Prometheus 3 are advice on the query, as on a counter's name; nothing is missing.
        for level, notes in ((logging.WARNING, warnings), (logging.INFO, infos)):
            for note in notes:
                _LOG.log(level, "Prometheus says of %s: %s", query, note)
        with many_objects():
            return SeriesList(read_result(results), (*warnings, *infos))

    def _limit(self) -> dict[str, str]:
        # The server stops too when nobody waits for the answer any more.
        return {"timeout": f"{round(self._settings.timeout_seconds * 1000)}ms"}
