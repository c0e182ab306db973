"""The pages of Core ML benchmarks in Chromium. The last tests take away what the others need."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from playwright.sync_api import Locator, Page, expect
from sqlalchemy import delete

from fastvlm_ops.core.coreml.verdicts import Metric
from fastvlm_ops.core.store import open_store
from fastvlm_ops.core.store.tables.coreml import baselines, verdicts
from fastvlm_ops.ui.coreml.standing import Subject
from tests.integration.ui.benchmarks import (
    DECODER,
    ENCODER,
    FAILED,
    HOSTILE,
    IMPROVED,
    MISSING,
    NEW_EPOCH,
    NEW_VERSION,
    NIGHTS,
    OLD,
    REGRESSED,
    STEADY,
    UNDECLARED,
    UNSTABLE,
    WRONG,
    night_key,
)
from tests.integration.ui.conftest import Visit
from tests.integration.ui.looking import CONTRAST, PHONE, is_dark, taken_away, watched
from tests.integration.ui.rig import VIEWER, Rig

pytestmark = pytest.mark.integration
ROOT = "/fastvlm-ops"
LIST = f"{ROOT}/coreml"
DETAIL = ROOT + REGRESSED.address()
PAGES = {"list": LIST, "detail": DETAIL, "without a result": ROOT + MISSING.address()}
HOSTILE_SHOWN = "<script>alert('x')</script>\"\\\\n\\u202e/é"


def row(page: Page, subject: Subject) -> Locator:
    """What the list says of a subject."""
    name = f"{subject.model} on {subject.device} with {subject.compute_unit}"
    return page.locator("table.list tbody tr").filter(has=page.get_by_role("link", name=name, exact=True))


def test_core_ml_stands_in_airflows_navigation(visit: Visit, rig: Rig) -> None:
    page = visit().new_page()
    wrong = watched(page, rig)
    page.goto(f"{rig.url}/plugin/operations{ROOT}/backups")
    frame = page.frame_locator("iframe")
    frame.get_by_role("link", name="Core ML", exact=True).click()
    expect(frame.get_by_role("heading", name="Core ML", exact=True)).to_be_visible()
    expect(frame.locator("table.list tbody tr")).to_have_count(11)
    frame.get_by_role("link", name=f"{ENCODER} on {REGRESSED.device} with {REGRESSED.compute_unit}").click()
    expect(frame.get_by_role("heading", name=f"{ENCODER} on {REGRESSED.device}")).to_be_visible()
    page.wait_for_url(f"**/plugin/operations{DETAIL}")  # the address can be sent to somebody
    frame.get_by_role("navigation", name="The model on all devices").get_by_role(
        "link", name=f"{STEADY.device} · {STEADY.compute_unit}"
    ).click()
    page.wait_for_url(f"**/plugin/operations{ROOT}{STEADY.address()}")
    assert wrong == []


def test_what_is_not_good_comes_first_and_is_as_visible_as_a_regression(visit: Visit, rig: Rig) -> None:
    page = visit(VIEWER).new_page()
    page.goto(rig.url + LIST)
    badges = [
        (badge.inner_text(), badge.get_attribute("class")) for badge in page.locator("td.said > .badge").all()
    ]
    assert badges == [
        *[("regression", "badge bad")] * 3,
        ("failed", "badge bad"),
        ("missing", "badge bad"),
        ("unstable", "badge warn"),
        ("not measured", "badge warn"),
        ("stale", "badge warn"),
        ("improvement", "badge good"),
        *[("ok", "badge good")] * 2,  # the last is not in coreml.yaml
    ]
    colours = [
        page.locator("tbody th").nth(n).evaluate("e => getComputedStyle(e).boxShadow") for n in (0, 3, 4)
    ]
    assert len(set(colours)) == 1
    assert "inset" in colours[0]
    assert [card.inner_text() for card in page.locator(".card .figure").all()] == ["3", "2", "3", "2"]
    assert "device_missing" in row(page, MISSING).inner_text()
    assert "ios18.slice_update" in row(page, FAILED).inner_text()


def test_a_row_has_its_figures_with_change_and_interval(visit: Visit, rig: Rig) -> None:
    page = visit().new_page()
    page.goto(rig.url + LIST)
    regressed = row(page, REGRESSED).inner_text()
    assert "13." in regressed
    assert "+6.2 %" in regressed
    assert "+5.5 to +6.9 %" in regressed
    assert "latency, median; placement" in regressed
    assert "81.8 dB" in regressed
    assert "NE 84 %" in regressed
    assert "CPU 14 %" in regressed
    widths = [
        float(one.get_attribute("width")) for one in row(page, REGRESSED).locator(".placement rect").all()
    ]
    assert widths == [84, 2, 14]
    assert row(page, REGRESSED).locator(".spark path").count() == 1
    assert "30.4 dB" in row(page, WRONG).inner_text()
    assert "\u22128.0 %" in row(page, IMPROVED).inner_text()


def test_the_reference_is_labelled_and_nothing_else_is(visit: Visit, rig: Rig) -> None:
    page = visit().new_page()
    page.goto(rig.url + LIST)
    labelled = page.locator("table.list tbody tr").filter(has_text="not Apple hardware")
    assert labelled.count() == 3
    assert all("linux-reference" in text for text in labelled.all_inner_texts())
    assert "Mac" in row(page, MISSING).inner_text()  # though its newest run did not find it
    page.goto(rig.url + ROOT + WRONG.address())
    assert "its times tell nothing of an iPhone or a Mac" in page.locator("main").inner_text()
    times = page.get_by_role("row").filter(has_text="latency, median").first
    assert "informs only" in times.inner_text()
    page.goto(rig.url + DETAIL)
    assert page.get_by_text("not Apple hardware", exact=True).count() == 0


def test_the_list_is_filtered(visit: Visit, rig: Rig) -> None:
    page = visit().new_page()
    page.goto(rig.url + LIST)
    rows = page.locator("table.list tbody tr")
    page.locator("select[name=model]").select_option(ENCODER)
    page.locator("select[name=verdict]").select_option("OK")
    with page.expect_navigation():
        page.get_by_role("button", name="Show").click()
    assert rows.count() == 1
    assert STEADY.compute_unit in rows.inner_text()
    page.goto(rig.url + LIST)
    with page.expect_navigation():
        page.locator(".card").filter(has_text="No result").get_by_role("link").click()
    assert rows.count() == 2
    assert all(DECODER in text for text in rows.all_inner_texts())
    page.goto(f"{rig.url}{LIST}?model=None")
    expect(page.get_by_role("heading", name="Nothing like that")).to_be_visible()


def test_the_link_of_a_task_leads_to_what_its_run_has_measured(visit: Visit, rig: Rig) -> None:
    page = visit().new_page()
    earlier = night_key(NIGHTS - 10)
    page.goto(f"{rig.url}{LIST}?run={quote(earlier, safe='')}")
    assert page.locator("table.list tbody tr").count() == 10  # nothing that it did not measure
    assert set(page.locator("td.said > .badge").all_inner_texts()) == {"ok"}
    row(page, MISSING).get_by_role("link").click()
    expect(page.get_by_text("not of the newest")).to_be_visible()
    region = page.get_by_role("region", name="Verdict", exact=True)
    assert "ok" in region.inner_text()
    page.get_by_role("link", name="Show the newest").click()
    expect(region).to_contain_text("missing")
    page.goto(f"{rig.url}{LIST}?run=coreml_benchmark/none")
    expect(page.get_by_role("heading", name="That run has measured nothing")).to_be_visible()


def test_the_trend_has_sessions_nights_baseline_changes_and_epochs(visit: Visit, rig: Rig) -> None:
    page = visit().new_page()
    page.goto(rig.url + DETAIL)
    picture = page.get_by_role("img", name="Latency of a prediction")
    assert picture.locator("path.cloud-sessions").get_attribute("d").count("M") == NIGHTS * 12
    assert picture.locator("circle.dot").count() == NIGHTS
    assert picture.locator("circle.dot-bad").count() == NIGHTS - NEW_VERSION
    assert picture.locator("path.area-accepted").count() == 2  # one an epoch
    assert picture.locator("path.line-mean").get_attribute("d").count("M") == 1
    marks = picture.locator(".mark-text").all_text_contents()
    assert marks[0] == "OS 18.1 → 18.2"
    assert len(marks) == 2
    assert marks[1].startswith("+")
    summary = picture.locator("desc").text_content()
    assert f"{NIGHTS} of {NIGHTS} runs" in summary
    assert "new epoch on" in summary
    page.get_by_text("The nights as a table").click()
    table = page.locator("table.figures tbody tr")
    assert table.count() == NIGHTS
    assert "accepted" not in table.first.inner_text()
    assert "accepted" in table.last.inner_text()
    page.get_by_label("History").select_option("30")
    with page.expect_navigation():
        page.get_by_role("button", name="Show").click()
    expect(picture.locator("circle.dot")).to_have_count(31)


def test_versions_have_bars_of_placement_and_the_operations_that_moved(visit: Visit, rig: Rig) -> None:
    page = visit().new_page()
    page.goto(rig.url + DETAIL)
    versions = page.get_by_role("region", name="Where versions are planned to run").locator("tbody tr")
    assert [version.split()[0] for version in versions.locator("th").all_inner_texts()] == [
        *("1.14", "1.13", "1.12", "1.11", "1.10", "1.9"),
    ]
    newest = versions.first
    assert newest.locator(".cost-cpu").first.get_attribute("width") == "14.0"
    moved = newest.locator(".operations li").all_inner_texts()
    assert moved[0] == "stage3_mixer_dwconv_7 ios17.conv Neural Engine → CPU 11 % of the cost"
    assert moved[1].startswith("<b>gather</b>\\u202e_1")
    assert "nothing" in versions.nth(1).inner_text()


def test_verdicts_have_their_reasons_and_parity_its_picture(visit: Visit, rig: Rig) -> None:
    page = visit().new_page()
    page.goto(rig.url + ROOT + WRONG.address())
    said = page.get_by_role("region", name="What was said of the newest run").locator("tbody tr")
    assert "below the 35 dB that are wanted" in said.first.inner_text()
    assert said.count() == len(Metric)
    parity = page.get_by_role("img", name="Parity with the golden outputs (PSNR)")
    assert parity.locator("circle.dot-bad").count() == NIGHTS - NEW_VERSION
    assert parity.locator(".rule-text").text_content() == "at least 35 dB"
    page.goto(rig.url + DETAIL)
    earlier = page.get_by_role("region", name="Earlier verdicts that were not OK")
    assert earlier.locator("tbody tr").count() == 2 * (NIGHTS - NEW_VERSION - 1)
    earlier.get_by_role("link").first.click()
    expect(page.get_by_text("not of the newest")).to_be_visible()


def test_what_is_unknown_is_not_zero_and_not_good(visit: Visit, rig: Rig) -> None:
    page = visit().new_page()
    page.goto(rig.url + ROOT + MISSING.address())
    facts = page.locator(".facts").inner_text()
    assert facts.count("unknown") >= 8
    assert page.get_by_role("img", name="Latency of a prediction").locator("path.cross-bad").count() == 1
    assert page.locator("section.message .badge").first.get_attribute("class") == "badge bad"
    page.goto(rig.url + ROOT + UNDECLARED.address())
    assert "Whether its outputs are right is unknown" in page.locator("main").inner_text()
    page.goto(rig.url + LIST)
    assert "not in coreml.yaml" in row(page, UNDECLARED).inner_text()
    assert "it was OK 9 d ago" in row(page, OLD).inner_text()
    assert row(page, OLD).locator(".badge.good").count() == 0
    never = page.locator("table.list tbody tr").filter(has_text="no run has measured it yet")
    assert never.inner_text().count("unknown") == 4
    assert never.get_by_role("link").count() == 0


def test_a_new_epoch_is_insufficient_and_hostile_reasons_are_only_text(visit: Visit, rig: Rig) -> None:
    page = visit().new_page()
    wrong = watched(page, rig)
    page.goto(rig.url + LIST)
    assert HOSTILE_SHOWN in row(page, NEW_EPOCH).inner_text()
    page.goto(rig.url + ROOT + NEW_EPOCH.address())
    region = page.get_by_role("region", name="Verdict", exact=True)
    expect(region).to_contain_text(HOSTILE_SHOWN)
    assert "new epoch: OS 18.1 → 18.2" in page.locator("main").inner_text()
    assert page.locator("main script, main b").count() == 0
    assert "\u202e" not in page.content()
    assert HOSTILE not in page.content()
    assert wrong == []


def test_an_unstable_run_shows_its_sessions(visit: Visit, rig: Rig) -> None:
    page = visit().new_page()
    page.goto(rig.url + ROOT + UNSTABLE.address())
    assert "the device was throttled" in page.get_by_role("region", name="Verdict", exact=True).inner_text()
    picture = page.get_by_role("img", name="Latency of a prediction")
    assert picture.locator("circle.dot-warn").count() == 1


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
    link = row(page, STEADY).get_by_role("link")
    link.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name=f"{STEADY.model} on {STEADY.device}")).to_be_visible()


def test_a_broken_definition_file_is_named_and_the_pages_stay(visit: Visit, rig: Rig) -> None:
    file = rig.folder / "include" / "coreml.yaml"
    before = file.read_text()
    file.write_text("version: 1\nmodels: none\n")
    try:
        page = visit().new_page()
        for address in (LIST, DETAIL):
            page.goto(rig.url + address)
            expect(page.get_by_role("alert")).to_contain_text("coreml.yaml")
        page.goto(rig.url + LIST)
        expect(page.locator("table.list tbody tr")).to_have_count(10)
        assert page.get_by_text("not in coreml.yaml").count() == 0  # nobody knows
    finally:
        file.write_text(before)


def test_a_run_that_nobody_judged_is_not_ok(visit: Visit, rig: Rig) -> None:
    with open_store(f"sqlite:///{rig.database}") as store, store.write() as connection:
        for table in (verdicts, baselines):
            connection.execute(delete(table).where(table.c.compute_unit == STEADY.compute_unit))
    page = visit().new_page()
    page.goto(rig.url + LIST)
    assert "not judged" in row(page, STEADY).inner_text()
    assert row(page, STEADY).locator(".badge.good").count() == 0
    page.goto(rig.url + ROOT + STEADY.address())
    assert "Nothing was said of it" in page.locator("main").inner_text()
    assert page.locator("path.area-accepted").count() == 0
    assert "none" in page.locator(".facts .badge.warn").inner_text()


def test_never_measured_is_not_fine(visit: Visit, rig: Rig) -> None:
    definitions = rig.folder / "include" / "coreml.yaml"
    with taken_away(rig.database):
        page = visit().new_page()
        page.goto(rig.url + LIST)
        expect(page.get_by_text("never measured", exact=True)).to_be_visible()
        assert set(page.locator("td.said > .badge").all_inner_texts()) == {"not measured"}
        assert page.locator(".badge.good").count() == 0
        assert page.goto(rig.url + DETAIL).status == 404
        with taken_away(definitions):
            page.goto(rig.url + LIST)
            expect(page.get_by_role("heading", name="Nothing was measured yet")).to_be_visible()


def test_a_database_that_is_none_is_said_and_nothing_is_good(visit: Visit, rig: Rig) -> None:
    with taken_away(rig.database):
        rig.database.write_bytes(b"this is no database" * 100)
        page = visit().new_page()
        for address in PAGES.values():
            assert page.goto(rig.url + address).status == 503
            expect(page.get_by_role("alert")).to_contain_text("The operations database cannot be read")
            assert page.locator(".badge.good, .figure").count() == 0
