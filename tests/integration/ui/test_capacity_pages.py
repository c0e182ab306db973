"""The pages of capacity in Chromium. The last tests take away what the others need."""

from __future__ import annotations

import time

import pytest
from playwright.sync_api import Page, expect
from sqlalchemy import delete

from fastvlm_ops.core.store import open_store
from fastvlm_ops.core.store.tables.capacity import forecasts as forecast_rows
from fastvlm_ops.core.store.tables.capacity import recommendations, scores
from tests.integration.ui.conftest import Visit
from tests.integration.ui.forecasts import AS_OF, BUSY, GONE, GROWING, HOSTILE, IDLE, NAMES, NEW, key
from tests.integration.ui.looking import CONTRAST, PHONE, is_dark, taken_away, watched
from tests.integration.ui.rig import VIEWER, Rig

pytestmark = pytest.mark.integration
LIST = "/fastvlm-ops/capacity"
ACCURACY = f"{LIST}/accuracy"
SERIES = f"{LIST}/{key(GROWING)}/cpu"
PAGES = {"list": LIST, "series": SERIES, "accuracy": ACCURACY}
HOSTILE_SHOWN = "<script>alert('x')</script>\"\\\\n\\u202e/é"


def row(page: Page, service: str) -> str:
    """What the list says of a service."""
    found = page.locator("table.list tbody tr").filter(
        has=page.get_by_role("rowheader", name=service, exact=True)
    )
    return found.inner_text()


def test_capacity_stands_in_airflows_navigation(visit: Visit, rig: Rig) -> None:
    page = visit().new_page()
    wrong = watched(page, rig)
    page.goto(f"{rig.url}/plugin/operations{LIST}")
    frame = page.frame_locator("iframe")
    expect(frame.get_by_role("heading", name="Capacity", exact=True)).to_be_visible()
    expect(frame.locator("table.list tbody tr")).to_have_count(len(NAMES))
    frame.get_by_role("link", name=GROWING, exact=True).click()
    expect(frame.get_by_role("heading", name=f"{GROWING}: CPU")).to_be_visible()
    expect(frame.get_by_role("img", name="CPU by day")).to_be_visible()
    page.wait_for_url(f"**/plugin/operations{SERIES}**")  # the address can be sent to somebody
    frame.get_by_role("navigation", name="Resources of the service").get_by_role(
        "link", name="Memory"
    ).click()
    expect(frame.get_by_role("heading", name=f"{GROWING}: Memory")).to_be_visible()
    frame.get_by_role("link", name="Accuracy of all services").click()
    expect(frame.get_by_role("heading", name="Accuracy of forecasts")).to_be_visible()
    assert wrong == []


def test_the_link_of_a_task_leads_to_its_hour(visit: Visit, rig: Rig) -> None:
    page = visit().new_page()
    page.goto(f"{rig.url}/plugin/operations{LIST}?as_of={AS_OF:%Y-%m-%dT%HZ}")
    frame = page.frame_locator("iframe")
    expect(frame.locator("select[name=as_of]")).to_have_value(f"{AS_OF:%Y-%m-%dT%HZ}")


def test_the_list_says_what_is_needed_and_what_to_do_most_urgent_first(visit: Visit, rig: Rig) -> None:
    page = visit(VIEWER).new_page()
    page.goto(rig.url + LIST)
    assert page.locator("table.list tbody th").first.inner_text() == GROWING
    growing = row(page, GROWING)
    assert "scale up" in growing
    assert "4 → " in growing
    assert "likely" in growing
    assert "of 100 %" in growing
    assert "scale down" in row(page, IDLE)
    assert "with 2 replicas it would be" in row(page, IDLE)
    assert "stale" in row(page, GONE)
    assert "short" in row(page, NEW)
    assert "How many replicas run is not known" in row(page, HOSTILE_SHOWN)
    assert "stay" in row(page, BUSY)
    assert [card.inner_text() for card in page.locator(".card .figure").all()] == ["1", "1", "1", "0"]


def test_an_earlier_forecast_can_be_looked_at(visit: Visit, rig: Rig) -> None:
    page = visit().new_page()
    page.goto(rig.url + LIST)
    hours = page.locator("select[name=as_of] option")
    assert hours.count() == 3
    page.get_by_label("As of").select_option(index=2)
    with page.expect_navigation():
        page.get_by_role("button", name="Show").click()
    assert "1 of 3 runs in a row agree" in row(page, IDLE)
    page.get_by_role("link", name=IDLE, exact=True).click()
    assert "1 of 3 runs in a row agree" in page.get_by_role("region", name="What to do").inner_text()
    assert page.locator("select[name=as_of]").input_value() == hours.nth(2).get_attribute("value")


def test_a_picture_has_its_history_fan_limits_and_days(visit: Visit, rig: Rig) -> None:
    page = visit().new_page()
    page.goto(rig.url + SERIES)
    picture = page.get_by_role("img", name="CPU by day")
    for kind in ("area-band", "area-fan95", "area-fan99", "line-past", "line-mean"):
        assert picture.locator(f"path.{kind}").get_attribute("d").count("L") >= 25, kind
    assert picture.locator("path.line-past").get_attribute("d").count("M") == 2  # a gap is a gap
    texts = picture.locator(".rule-text").all_text_contents()
    assert len(texts) == 3
    assert "capacity 100 %" in texts
    assert picture.locator(".rule").count() == 3
    marks = picture.locator(".mark-text").all_text_contents()
    assert marks[0] == "forecast made"
    assert marks[1].startswith("used up on ")
    summary = picture.locator("desc").text_content()
    assert "88 days of history" in summary  # two days of ninety are no data
    assert "probably used up on" in summary
    legend = page.locator(".picture-legend li").all_inner_texts()
    assert len(legend) == 8
    assert (
        page.get_by_role("region", name="How right earlier forecasts were").get_by_role("row").count()
        == 1 + 14
    )


def test_what_is_unknown_is_not_zero(visit: Visit, rig: Rig) -> None:
    page = visit().new_page()
    page.goto(f"{rig.url}{LIST}/{key(NEW)}/requests")
    scores_shown = (
        page.get_by_role("region", name="How right earlier forecasts were").locator("tbody").inner_text()
    )
    assert scores_shown.count("unknown") == 14 * 4
    assert "fell short" not in scores_shown
    assert "fewer than 14" in page.locator("main").inner_text()
    assert page.get_by_text("Monthly cost").locator("xpath=following-sibling::dd").inner_text() == "unknown"


def test_hostile_names_are_only_text(visit: Visit, rig: Rig) -> None:
    page = visit().new_page()
    wrong = watched(page, rig)
    page.goto(rig.url + LIST)
    page.get_by_role("link", name=HOSTILE_SHOWN, exact=True).click()
    expect(page.locator("h1 bdi")).to_have_text(HOSTILE_SHOWN)
    expect(page.get_by_role("img", name="CPU by day")).to_be_visible()
    assert page.locator("main script").count() == 0
    assert "\u202e" not in page.content()
    assert HOSTILE not in page.content()
    assert wrong == []


def test_accuracy_over_time_as_pictures_and_as_a_table(visit: Visit, rig: Rig) -> None:
    page = visit().new_page()
    page.goto(rig.url + ACCURACY)
    names = [figure.inner_text() for figure in page.locator("figcaption").all()]
    assert names == [
        "Error (MASE)",
        "Hours under the 95 % bound",
        "Fell short of the required capacity",
        "Required beyond what was used",
    ]
    coverage = page.get_by_role("img", name="Hours under the 95 % bound")
    assert "of 60 forecasts" in coverage.locator("desc").text_content()
    assert coverage.locator("path.area-target").get_attribute("d").count("L") == 119
    short = page.get_by_role("img", name="Fell short of the required capacity")
    assert short.locator(".rule-text").text_content() == "allowed 5 %"
    page.get_by_text("The figures as a table").click()
    assert page.locator("table.figures tbody tr").count() == 60
    before = page.locator("table.figures tbody").inner_text()
    page.get_by_label("Resource").select_option("memory")
    with page.expect_navigation():
        page.get_by_role("button", name="Show").click()
    page.get_by_text("The figures as a table").click()
    assert page.locator("table.figures tbody").inner_text() != before


@pytest.mark.parametrize("address", PAGES.values(), ids=PAGES)
def test_on_a_phone_nothing_stands_out_of_the_page(visit: Visit, rig: Rig, address: str) -> None:
    page = visit(viewport=PHONE).new_page()
    page.goto(rig.url + address)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("address", PAGES.values(), ids=PAGES)
def test_contrast_is_at_least_aa(visit: Visit, rig: Rig, address: str, scheme: str) -> None:
    page = visit(color_scheme=scheme).new_page()
    page.goto(rig.url + address)
    assert page.evaluate(CONTRAST) == []
    assert is_dark(page) == (scheme == "dark")


def test_it_works_without_script_and_by_keyboard(visit: Visit, rig: Rig) -> None:
    page = visit(java_script_enabled=False).new_page()
    page.goto(rig.url + LIST)
    link = page.get_by_role("link", name=BUSY, exact=True)
    link.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("img", name="CPU by day")).to_be_visible()
    page.get_by_role("link", name="Capacity", exact=True).last.click()
    expect(page.get_by_role("heading", name="Capacity", exact=True)).to_be_visible()


def test_a_broken_definition_file_is_named_and_the_scores_stay(visit: Visit, rig: Rig) -> None:
    file = rig.folder / "include" / "capacity.yaml"
    before = file.read_text()
    file.write_text("version: 1\nresources: none\n")
    try:
        page = visit().new_page()
        page.goto(rig.url + ACCURACY)
        expect(page.get_by_role("alert")).to_contain_text("capacity.yaml")
        assert page.locator("figure.picture").count() == 4
        assert page.get_by_text("allowed").count() == 0
    finally:
        file.write_text(before)


def test_a_database_that_is_none_is_said(visit: Visit, rig: Rig) -> None:
    with taken_away(rig.database):
        rig.database.write_bytes(b"this is no database" * 100)
        page = visit().new_page()
        for address in PAGES.values():
            assert page.goto(rig.url + address).status == 503
            expect(page.get_by_role("alert")).to_contain_text("The operations database cannot be read")
            assert page.locator(".badge.good, .figure").count() == 0


def test_never_forecast_is_not_nothing_needed(visit: Visit, rig: Rig) -> None:
    with taken_away(rig.database):
        page = visit().new_page()
        page.goto(rig.url + LIST)
        expect(page.get_by_role("heading", name="Nothing was forecast yet")).to_be_visible()
        assert page.locator(".badge.good, .figure").count() == 0
        page.goto(rig.url + ACCURACY)
        expect(page.get_by_role("heading", name="Nothing was scored yet")).to_be_visible()
        assert page.goto(rig.url + SERIES).status == 404


def test_a_bucket_that_is_gone_is_said_and_the_figures_stay(visit: Visit, rig: Rig) -> None:
    rig.s3.stop()
    page = visit().new_page()
    began = time.monotonic()
    assert page.goto(rig.url + SERIES).status == 502
    assert time.monotonic() - began < 30
    expect(page.get_by_role("alert")).to_contain_text("The forecast's days cannot be read")
    assert page.locator("figure.picture").count() == 0
    assert "scale up" in page.get_by_role("region", name="What to do").inner_text()
    secret = rig.s3.secret_access_key
    assert secret not in page.content()
    assert secret not in rig.log()


def test_what_was_not_recommended_or_scored_is_said(visit: Visit, rig: Rig) -> None:
    with open_store(f"sqlite:///{rig.database}") as store, store.write() as connection:
        connection.execute(delete(scores))
        connection.execute(delete(recommendations))
        connection.execute(delete(forecast_rows).where(forecast_rows.c.metric == "requests"))
    page = visit().new_page()
    page.goto(rig.url + LIST)
    assert "not judged" in row(page, BUSY)
    assert "no metric" in row(page, BUSY)
    page.goto(rig.url + SERIES)
    assert "Nothing was recommended" in page.locator("main").inner_text()
    assert "No forecast of it has been scored yet" in page.locator("main").inner_text()
