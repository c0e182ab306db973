"""The hook against servers that are down, slow, wrong, or not Prometheus: in bounded time, one family."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from fastvlm_ops.core.prometheus.errors import (
    PartialResultError,
    PrometheusAnswerError,
    PrometheusError,
    PrometheusQueryError,
    PrometheusRefusedError,
    PrometheusUnavailableError,
)
from fastvlm_ops.hooks.prometheus import PrometheusHook
from fastvlm_ops.local.ports import free_ports
from tests.integration.prometheus.conftest import MakeHook
from tests.prometheus_stand_in import Act, Exchange, StandIn, healthy, in_turn, values

pytestmark = pytest.mark.integration

END = datetime(2026, 6, 1, tzinfo=UTC)
START = END - timedelta(days=90)
QUICK = {"timeout_seconds": 0.5, "retries": 2}
VERBS = pytest.mark.parametrize("method", ["POST", "GET"])
# Three attempts of half a second, two waits of less than 0.7 s together, and a busy machine.
LIMIT_SECONDS = 8


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Fails where it takes longer."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < seconds


def ask(hook: PrometheusHook) -> list[float]:
    """Values of an answer to a query of one hour."""
    (series,) = hook.query_range("m", END - timedelta(hours=1), END, 1800)
    return list(series.values)


@VERBS
def test_down(make_hook: MakeHook, method: str) -> None:
    hook = make_hook(f"http://127.0.0.1:{free_ports(1)[0]}", extra={**QUICK, "method": method})
    with within(LIMIT_SECONDS), pytest.raises(PrometheusUnavailableError, match=r"attempts: 3") as caught:
        ask(hook)
    assert caught.value.retryable


@VERBS
@pytest.mark.parametrize(
    "act", [Exchange.hang, lambda exchange: exchange.trickle(20)], ids=["hang", "trickle"]
)
def test_too_slow(make_hook: MakeHook, act: Act, method: str) -> None:
    with StandIn(act) as server:
        hook = make_hook(server.url, extra={**QUICK, "method": method})
        with within(LIMIT_SECONDS), pytest.raises(PrometheusUnavailableError, match=r"within 0\.5 s"):
            ask(hook)
        assert len(server.asked) == 3


@VERBS
@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_errors_that_may_pass_are_tried_again(make_hook: MakeHook, status: int, method: str) -> None:
    with StandIn(lambda exchange: exchange.error(status, "overloaded")) as server:
        hook = make_hook(server.url, extra={**QUICK, "method": method})
        with within(LIMIT_SECONDS), pytest.raises(PrometheusUnavailableError) as caught:
            ask(hook)
        assert f"answered {status}: overloaded (attempts: 3)" in str(caught.value)
        assert [asked.method for asked in server.asked] == [method] * 3


@VERBS
@pytest.mark.parametrize(
    "first",
    [
        lambda exchange: exchange.error(503, "starting"),
        lambda exchange: exchange.error(429, "later", Retry_After="1"),
        lambda exchange: exchange.reply(200, b'{"status": "success", "data"', length=10_000),
        Exchange.cut_chunk,
        lambda _exchange: None,  # closes the connection without an answer
        Exchange.hang,
    ],
    ids=["503", "429", "cut body", "cut chunk", "no answer", "hang"],
)
def test_what_passes_is_not_noticed(make_hook: MakeHook, first: Act, method: str) -> None:
    with StandIn(in_turn(first, healthy)) as server:
        hook = make_hook(server.url, extra={**QUICK, "method": method})
        with within(LIMIT_SECONDS):
            assert ask(hook) == [1, 1, 1]
        assert len(server.asked) == 2


def test_retry_after_is_waited_for_but_not_for_ever(make_hook: MakeHook) -> None:
    with StandIn(in_turn(lambda exchange: exchange.error(503, "x", Retry_After="1"), healthy)) as server:
        began = time.monotonic()
        ask(make_hook(server.url, extra=QUICK))
        assert 1 <= time.monotonic() - began < 5
        server.act = in_turn(lambda exchange: exchange.error(503, "x", Retry_After="86400"), healthy)
        with within(20):
            ask(make_hook(server.url, extra=QUICK))


PAGE = b"<html><title>Sign in</title></html>"


@VERBS
@pytest.mark.parametrize(
    ("act", "error", "message"),
    [
        (lambda e: e.reply(200, PAGE, kind="text/html"), PrometheusAnswerError, "Sign in.*text/html"),
        (lambda e: e.reply(200, b"[]"), PrometheusAnswerError, "no answer of Prometheus"),
        (lambda e: e.reply(200, b'{"status": "success"}'), PrometheusAnswerError, "without data"),
        (lambda e: e.reply(200, b'{"status": "success", "data": {}}'), PrometheusAnswerError, "data.result"),
        (lambda e: e.reply(200, b'{"status": "success", "data": 1}'), PrometheusAnswerError, "data.result"),
        (lambda e: e.answer([{"metric": {}, "histograms": []}]), PrometheusAnswerError, "native histograms"),
        (lambda e: e.reply(200, b'{"status": "error", "error": "why"}'), PrometheusQueryError, "error.*why"),
        (lambda e: e.error(400, "parse error"), PrometheusQueryError, "400: parse error"),
        (lambda e: e.error(422, "too many samples"), PrometheusQueryError, "422: too many samples"),
        (lambda e: e.reply(404, PAGE, kind="text/html"), PrometheusAnswerError, "404.*is the URL right"),
        (lambda e: e.error(401, "no"), PrometheusRefusedError, "401: no; check login, password"),
        (lambda e: e.error(403, "no"), PrometheusRefusedError, "403: no; check login, password"),
        (lambda e: e.error(405, "no"), PrometheusAnswerError, "set method to GET"),
        (
            lambda e: e.reply(302, b"", Location="https://login.example.org/"),
            PrometheusAnswerError,
            "redirects to https://login",
        ),
    ],
    ids=[
        "html",
        "list",
        "no_data",
        "no_result",
        "number",
        "histograms",
        "status",
        "400",
        "422",
        "404",
        "401",
        "403",
        "405",
        "302",
    ],
)
def test_what_cannot_pass_is_told_at_once(
    make_hook: MakeHook, act: Act, error: type[PrometheusError], message: str, method: str
) -> None:
    with StandIn(act) as server:
        hook = make_hook(server.url, extra={**QUICK, "method": method})
        with within(LIMIT_SECONDS), pytest.raises(error, match=message) as caught:
            ask(hook)
        assert caught.value.retryable is False
        assert len(server.asked) == 1


def test_a_partial_answer_is_refused_or_its_warning_kept(
    make_hook: MakeHook, caplog: pytest.LogCaptureFixture
) -> None:
    def act(exchange: Exchange) -> None:
        exchange.answer(
            [{"metric": {"service": "a"}, "values": values(exchange)}], warnings=["store eu-2 did not answer"]
        )

    with StandIn(act) as server:
        hook = make_hook(server.url, extra=QUICK)
        with pytest.raises(PartialResultError, match="store eu-2 did not answer") as caught:
            hook.hourly("m", START, END)
        assert caught.value.retryable
        with caplog.at_level(logging.WARNING):
            found = hook.hourly("m", START, END, allow_partial=True)
        assert found.attrs["notes"] == ["store eu-2 did not answer"]
        assert "store eu-2 did not answer" in caplog.text
        assert hook.query_range("m", START, END, 3600, allow_partial=True).notes == caught.value.notes
        server.act = healthy
        assert hook.hourly("m", START, END).attrs["notes"] == [], "notes are of one answer only"


def test_advice_on_the_query_is_taken_and_kept(make_hook: MakeHook, caplog: pytest.LogCaptureFixture) -> None:
    """The infos of Prometheus 3: the answer lacks nothing."""
    advice = "PromQL info: metric might not be a counter, name does not end in _total"

    def act(exchange: Exchange) -> None:
        exchange.answer([{"metric": {"service": "a"}, "values": values(exchange)}], infos=[advice])

    with StandIn(act) as server:
        hook = make_hook(server.url, extra=QUICK)
        with caplog.at_level(logging.INFO):
            found = hook.hourly("m", START, END)
        assert found["a"].notna().all()
        assert found.attrs["notes"] == [advice]
        (record,) = (record for record in caplog.records if advice in record.getMessage())
        assert record.levelno == logging.INFO
        assert hook.query_range("m", START, END, 3600).notes == (advice,)
        server.act = healthy
        assert hook.hourly("m", START, END).attrs["notes"] == []


def with_limits(exchange: Exchange) -> None:
    """A server that takes 11,000 points and 32 days at most, as Amazon's does."""
    times = exchange.asked.times
    if len(times) > 11_000:
        exchange.error(400, "exceeded maximum resolution of 11,000 points per timeseries")
    elif times[-1] - times[0] > 32 * 86_400:
        exchange.error(422, "the query time range exceeds the limit of 32 days")
    else:
        samples = values(exchange, lambda moment: str(moment))
        exchange.answer([{"metric": {"service": "a"}, "values": samples}])


@pytest.mark.parametrize(("step", "requests"), [(60, 12), (300, 3), (3600, 3), (86_400, 3)])
def test_servers_that_limit_ranges(make_hook: MakeHook, step: int, requests: int) -> None:
    with StandIn(with_limits) as server:
        (series,) = make_hook(server.url).query_range("m", START, END, step)
        count = 90 * 86_400 // step + 1
        expected = START.timestamp() + step * np.arange(count)
        np.testing.assert_array_equal(series.times_ms, (expected * 1000).astype(np.int64))
        np.testing.assert_array_equal(series.values, expected)
        assert server.points() == list(expected), "each point was asked for once"
        assert len(server.asked) == requests


def test_a_chunk_that_fails_gives_no_half_answer(make_hook: MakeHook) -> None:
    with StandIn(in_turn(healthy, lambda exchange: exchange.error(422, "no"))) as server:
        with pytest.raises(PrometheusQueryError):
            make_hook(server.url, extra=QUICK).hourly("m", START, END)
        assert len(server.asked) == 2


def test_odd_values_repeated_samples_and_replicas(make_hook: MakeHook) -> None:
    hour = 3600
    first = END.timestamp() - 4 * hour - 0.001

    def act(exchange: Exchange) -> None:
        one = [
            [first + hour, "1"],
            [first + hour, "9"],
            [first + 2 * hour, "stale"],
            [first + 3 * hour, "NaN"],
        ]
        other = [[first + 3 * hour, "3"], [first + 4 * hour, "+Inf"]]
        exchange.answer(
            [
                {"metric": {"service": "a", "replica": "1"}, "values": other},
                {"metric": {"service": "a", "replica": "0"}, "values": one},
            ]
        )

    with StandIn(act) as server:
        found = make_hook(server.url, extra=QUICK).hourly("m", END - timedelta(hours=4), END)
    np.testing.assert_array_equal(found["a"], [1, np.nan, 3, np.nan])


def test_a_server_that_moves_times_to_full_steps(make_hook: MakeHook) -> None:
    def act(exchange: Exchange) -> None:  # as Thanos's query frontend does
        samples = [[moment // 3600 * 3600, str(moment // 3600 * 3600)] for moment in exchange.asked.times]
        exchange.answer([{"metric": {"service": "a"}, "values": samples}])

    with StandIn(act) as server:
        found = make_hook(server.url, extra=QUICK).hourly("m", END - timedelta(hours=4), END)
    hours = [moment.timestamp() + 3600 for moment in found.index]
    np.testing.assert_array_equal(found["a"], [*hours[:-1], np.nan])


def test_credentials_and_headers_are_sent(make_hook: MakeHook) -> None:
    with StandIn() as server:
        ask(make_hook(server.url, password="the-token", extra={"headers": {"X-Scope-OrgID": "tenant"}}))
        ask(make_hook(server.url, login="me", password="größe"))
        ask(make_hook(server.url))
        token, basic, nothing = (asked.headers for asked in server.asked)
    assert (token["Authorization"], token["X-Scope-OrgID"]) == ("Bearer the-token", "tenant")
    assert basic["Authorization"] == "Basic bWU6Z3LDtsOfZQ=="
    assert "Authorization" not in nothing
    assert nothing["Accept-Encoding"] == "identity", "on one machine, compression only costs time"


def test_a_netrc_file_is_not_sent(
    make_hook: MakeHook, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path_factory.mktemp("home") / "netrc"
    netrc.write_text("machine 127.0.0.1 login other password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    with StandIn() as server:
        ask(make_hook(server.url))
        ask(make_hook(server.url, password="the-token"))
        sent = [asked.headers.get("Authorization") for asked in server.asked]
    assert sent == [None, "Bearer the-token"]


def test_the_test_button_is_quick(make_hook: MakeHook) -> None:
    with StandIn(Exchange.hang) as server:
        with within(LIMIT_SECONDS):
            good, said = make_hook(server.url, extra={"timeout_seconds": 1}).test_connection()
        assert (good, len(server.asked)) == (False, 1)
        assert "did not answer within 1 s" in said
        server.act = lambda exchange: exchange.answer([{"metric": {}, "value": [1, "2"]}], "vector")
        good, said = make_hook(server.url).test_connection()
        assert not good
        assert "answers vector(1) with something else than 1" in said


def test_what_is_sent_bounds_the_server_too(make_hook: MakeHook) -> None:
    with StandIn() as server:
        make_hook(server.url, extra={"timeout_seconds": 1.5}).hourly("m", END - timedelta(hours=2), END)
        (asked,) = server.asked
    assert asked.path == "/api/v1/query_range"
    last = END.timestamp() - 0.001
    assert [float(asked.fields[name]) for name in ("start", "end", "step")] == [last - 3600, last, 3600]
    assert (asked.fields["query"], asked.fields["timeout"]) == ("m", "1500ms")
