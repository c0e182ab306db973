"""What can go wrong with Prometheus: one family, so that a caller catches one class."""

from __future__ import annotations


class PrometheusError(Exception):
    """Base of every error that reading Prometheus raises on purpose.

    ``retryable`` tells a scheduler whether trying again can help.
    """

    retryable = False


class PrometheusUnavailableError(PrometheusError):
    """The server is down, too slow, overloaded, or its answer was cut off; trying again did not help.

    :param message: what happened
    :param retry_after_seconds: when the server asked to be tried again; None where it did not say
    """

    retryable = True

    def __init__(self, message: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class PrometheusRefusedError(PrometheusError):
    """The server refuses who asks, or is not trusted."""


class PrometheusQueryError(PrometheusError):
    """The question is wrong: the server refuses the query, or a time, step or label cannot be used."""


class PrometheusAnswerError(PrometheusError):
    """The answer is not one that Prometheus gives, such as the page of a proxy."""


class PartialResultError(PrometheusError):
    """The answer may lack data, by the server's own words.

    :param notes: the server's warnings; its infos say nothing of the kind
    """

    retryable = True  # the store that did not answer may do so later

    def __init__(self, notes: tuple[str, ...]) -> None:
        super().__init__(
            f"the answer may be partial: {'; '.join(notes)} (allow_partial=True takes it as it is)"
        )
        self.notes = notes
