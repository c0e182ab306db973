"""The pages in Chromium, inside Airflow and by themselves. The last tests take away what the others need."""

from __future__ import annotations

import time

import pytest
from playwright.sync_api import expect

from fastvlm_ops.local.airflow_stack import USER
from tests.integration.ui.conftest import Visit
from tests.integration.ui.history import REAL_SET
from tests.integration.ui.looking import CONTRAST, PHONE, is_dark, taken_away, watched
from tests.integration.ui.rig import VIEWER, Rig

pytestmark = pytest.mark.integration
BACKUPS = "/fastvlm-ops/backups"
DETAIL = f"{BACKUPS}/{REAL_SET}"
FILES = f"{DETAIL}/files/uploads"
PRUNING = f"{BACKUPS}/pruning"
COSTS = f"{BACKUPS}/costs"
RECOVERY = f"{BACKUPS}/recovery"


def test_operations_stand_in_airflows_navigation(visit: Visit, rig: Rig) -> None:
    page = visit().new_page()
    wrong = watched(page, rig)
    page.goto(rig.url)
    page.get_by_role("link", name="Operations").click()
    frame = page.frame_locator("iframe")
    expect(frame.get_by_role("heading", name="Backups", exact=True)).to_be_visible()
    expect(frame.locator("table.list tbody tr")).to_have_count(25)
    assert [card.inner_text() for card in frame.locator(".card h3").all()] == [
        "models",
        "configuration",
        "application_data",
        "uploads",
    ]
    expect(frame.locator(".card .badge.good")).to_have_count(4)
    expect(frame.locator("svg rect.bar")).to_have_count(3 * 45)
    frame.get_by_role("link", name=REAL_SET).first.click()
    expect(frame.get_by_role("heading", name=REAL_SET)).to_be_visible()
    page.wait_for_url(f"**/plugin/operations{DETAIL}")  # the address can be sent to somebody
    assert wrong == []


def test_the_list_is_paged_and_filtered(visit: Visit, rig: Rig) -> None:
    page = visit().new_page()
    page.goto(rig.url + BACKUPS)
    seen = page.locator("table.list tbody th").all_inner_texts()
    while (older := page.get_by_role("link", name="Older")).count():
        with page.expect_navigation():
            older.click()
        seen += page.locator("table.list tbody th").all_inner_texts()
    assert len(seen) == len(set(seen)) == 61
    page.get_by_label("Kind").select_option("full")
    with page.expect_navigation():
        page.get_by_role("button", name="Show").click()
    assert set(page.locator("table.list .kind").all_inner_texts()) == {"full"}
    page.goto(f"{rig.url}{BACKUPS}?kind=configuration")
    expect(page.get_by_role("heading", name="No backup like that")).to_be_visible()


def test_charts_have_names_and_their_figures_as_a_table(visit: Visit, rig: Rig) -> None:
    page = visit().new_page()
    page.goto(rig.url + BACKUPS)
    for title in ("Size", "New data sent", "Duration"):
        chart = page.get_by_role("group", name=title)
        assert "of 45 backups" in chart.locator("desc").text_content()
    page.get_by_text("The figures as a table").click()
    assert page.locator("table.figures tbody tr").count() == 45
    first = page.locator("table.figures tbody tr").first.inner_text()
    assert REAL_SET in first
    assert "MiB" in first


def test_a_backup_shows_what_is_known_of_it(visit: Visit, rig: Rig) -> None:
    page = visit().new_page()
    page.goto(rig.url + DETAIL)
    row = page.get_by_role("row").filter(has_text="configuration").first
    assert "2 files" in row.inner_text()
    assert "intact" in row.inner_text()
    assert "restored" in row.inner_text()
    assert "passed" in row.inner_text()
    models = page.get_by_role("row").filter(has_text="models").first.inner_text()
    assert "0 B shared" not in models  # an earlier run had stored most of it
    assert "MiB shared or saved" in models
    checks = page.get_by_role("region", name="Verifications and restores")
    assert checks.get_by_text("new folder").count() == 1
    assert checks.get_by_text("restore-tested test").count() == 1
    assert checks.get_by_role("row").count() == 1 + 6


def test_hostile_names_are_only_text(visit: Visit, rig: Rig) -> None:
    page = visit().new_page()
    wrong = watched(page, rig)
    page.goto(rig.url + FILES)
    names = page.locator("table.list tbody th bdi").all_inner_texts()
    assert names == [
        "<b>folder\\n\\xff",
        "'\"><img src=x onerror=alert(2)>",
        "..%2f..%2fpasswd",
        "<script>alert(1)<script>.bin",
        "line\\nend.txt",
        "no utf-8 \\xff\\xfe.jpg",
        "turned \\u202egpj.exe",
    ]
    assert page.locator("main img, main script, main b").count() == 0
    page.get_by_role("link", name="<b>folder").click()
    expect(page.locator("h1")).to_have_text("<b>folder\\n\\xff")
    assert page.locator("table.list tbody th bdi").all_inner_texts() == ["inner.txt"]
    assert "77 B" in page.locator("table.list").inner_text()
    assert wrong == []


@pytest.mark.parametrize("start", [f"/plugin/operations{DETAIL}", DETAIL], ids=["in Airflow", "by itself"])
def test_restore_opens_airflows_form_filled_in(visit: Visit, rig: Rig, start: str) -> None:
    page = visit().new_page()
    wrong = watched(page, rig)
    page.goto(rig.url + start)
    where = page.frame_locator("iframe") if start.startswith("/plugin") else page
    where.locator("[data-restore=uploads]").click()
    page.wait_for_url("**/dags/restore_backup")
    expect(page.locator("[name=element_backup_id]")).to_be_visible()  # its section was opened
    expect(page.locator("[name=element_backup_id]")).to_have_value(REAL_SET)
    expect(page.locator("[name=element_components]")).to_have_value("uploads")
    assert page.locator("[name=element_dry_run]").is_checked()
    with page.expect_response(
        lambda answer: answer.url.endswith("/dagRuns") and answer.request.method == "POST"
    ) as sent:
        page.get_by_test_id("trigger-dag-submit").click()
    assert sent.value.ok, sent.value.text()
    conf = sent.value.json()["conf"]
    assert (conf["backup_id"], conf["components"], conf["dry_run"]) == (REAL_SET, ["uploads"], True)
    assert page.locator("body > [role=alert]").count() == 0
    assert wrong == []


def test_pruning_shows_what_goes_and_why_it_is_refused(visit: Visit, rig: Rig) -> None:
    page = visit().new_page()
    wrong = watched(page, rig)
    page.goto(rig.url + BACKUPS)
    page.get_by_role("navigation", name="Pages of backups").get_by_role("link", name="Pruning").click()
    newest = page.get_by_role("region", name="Newest plan")
    expect(newest.get_by_role("heading")).to_contain_text("refused")
    expect(newest).to_contain_text("at most 50% may at once (max_share)")
    facts = newest.locator("dl").inner_text()
    assert "37 of 61, with 148 snapshots" in facts
    assert "nothing yet" in facts
    picture = newest.get_by_role("img", name="What becomes of the bytes")
    assert "14.0 GiB stay as they are; 341 MiB copied" in picture.locator("desc").text_content()
    assert picture.locator("rect").count() == 4
    legend = newest.locator(".picture-legend li").all_inner_texts()
    assert legend[3] == "512 MiB no longer needed, but locked by S3"
    sets = page.get_by_role("region", name="Backups, and what keeps them")
    assert sets.locator("tbody tr").count() == 61
    assert "last 1, daily 2026-11-01" in sets.locator("tbody tr").first.inner_text()
    page.get_by_label("Show").select_option("forgotten")
    with page.expect_navigation():
        page.get_by_role("button", name="Show").click()
    assert set(sets.locator("tbody .badge").all_inner_texts()) == {"forgotten"}
    runs = page.get_by_role("region", name="Runs").locator("tbody tr")
    assert [row.locator(".badge").inner_text() for row in runs.all()] == [
        *("refused", "done", "done", "rejected", "done", "done", "done", "planned")
    ]
    verifications = page.get_by_role("region", name="Verifications").locator("tbody tr").all_inner_texts()
    assert "damaged 1 object, 1 snapshot" in verifications[0].replace("\t", " ")
    assert "unknown\nof unknown" in verifications[4], "which an older version did not record"
    assert page.locator("main script, main b").count() == 0
    assert wrong == []


def test_costs_show_what_is_stored_asked_for_and_what_a_month_comes_to(visit: Visit, rig: Rig) -> None:
    page = visit(VIEWER).new_page()
    wrong = watched(page, rig)
    page.goto(rig.url + BACKUPS)
    page.get_by_role("link", name="Costs", exact=True).click()
    expect(page.get_by_role("heading", name="Costs of backups")).to_be_visible()
    facts = page.locator(".facts").inner_text()
    assert "GiB" in facts
    assert "behind" in facts
    assert "4 entries behind" in facts
    estimate = page.get_by_role("region", name="Estimate of a month")
    assert "USD" in estimate.locator("tfoot").inner_text()
    assert estimate.get_by_text("unknown", exact=True).count() == 0
    picture = page.get_by_role("img", name="Stored in the bucket")
    assert picture.locator("path.line").count() == 1
    assert picture.locator("path.area").count() == 2
    assert "STANDARD_IA" in picture.locator("desc").text_content()
    page.get_by_text("The figures as a table").click()
    table = page.get_by_role("region", name="Figures of the charts").locator("tbody tr")
    assert table.count() == 45
    assert "<script>alert(9)</script>" in table.first.inner_text()
    assert wrong == []


def test_costs_without_prices_are_unknown_and_not_nothing(visit: Visit, rig: Rig) -> None:
    file = rig.folder / "include" / "components.yaml"
    before = file.read_text()
    page = visit().new_page()
    try:
        file.write_text(before.partition("\nprices:")[0])
        page.goto(rig.url + COSTS)
        estimate = page.get_by_role("region", name="Estimate of a month")
        assert "No prices are set" in estimate.inner_text()
        assert estimate.locator("tfoot strong").inner_text() == "unknown"
        assert "0.00" not in estimate.inner_text()
        file.write_text("version: 1\ncomponents: none\n")
        page.goto(rig.url + COSTS)
        expect(page.get_by_role("alert")).to_contain_text("components.yaml")
        expect(page.get_by_role("img", name="Stored in the bucket")).to_be_visible()
    finally:
        file.write_text(before)


def test_the_form_of_maintenance_opens_filled_in_and_stays_a_dry_run(visit: Visit, rig: Rig) -> None:
    page = visit().new_page()
    page.goto(f"{rig.url}/plugin/operations{PRUNING}")
    page.frame_locator("iframe").get_by_role("link", name="Plan or prune…").click()
    page.wait_for_url("**/dags/backup_maintenance")
    expect(page.locator("[name=element_approval_timeout_minutes]")).to_have_value("240")
    assert page.locator("[name=element_dry_run]").is_checked()
    assert page.locator("body > [role=alert]").count() == 0


def test_recovery_shows_to_which_moments_and_what_is_missing(visit: Visit, rig: Rig) -> None:
    page = visit().new_page()
    wrong = watched(page, rig)
    page.goto(rig.url + BACKUPS)
    page.get_by_role("navigation", name="Pages of backups").get_by_role("link", name="Recovery").click()
    well = page.get_by_role("region", name="application_data no gap")
    facts = well.locator("dl").inner_text()
    assert "2/9000000" in facts
    assert "3.8 KiB the last stored transaction is 2 min old" in facts
    picture = well.get_by_role("img", name="application_data over time")
    assert picture.locator("desc").text_content().startswith("Any moment from ")
    assert picture.locator("rect.window-open").count() == 1
    assert picture.locator("line.window-base").count() > 20
    broken = page.get_by_role("region", name="models gap")
    expect(broken).to_contain_text("segment 000000010000000000000005 is missing")
    assert broken.locator("rect.window-gap").count() == 1
    unknown = page.get_by_role("region", name="uploads unknown")
    expect(unknown).to_contain_text("What has happened since is unknown")
    assert unknown.get_by_role("link", name="Recover").count() == 0
    assert page.locator("main b").count() == 0
    assert wrong == []


def test_the_form_of_recovery_opens_with_the_newest_moment(visit: Visit, rig: Rig) -> None:
    page = visit().new_page()
    page.goto(f"{rig.url}/plugin/operations{RECOVERY}")
    page.frame_locator("iframe").get_by_role("link", name="Recover… application_data").click()
    page.wait_for_url("**/dags/restore_backup")
    expect(page.locator("[name=element_recover_time]")).to_have_value(rig.recoverable_until)
    expect(page.locator("[name=element_components]")).to_have_value("application_data")
    assert page.locator("[name=element_dry_run]").is_checked()
    assert page.locator("body > [role=alert]").count() == 0


def test_a_damaged_backup_offers_the_nearest_intact_one(visit: Visit, rig: Rig) -> None:
    page = visit().new_page()
    page.goto(f"{rig.url}{BACKUPS}/{rig.damaged_set}")
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("models cannot be restored whole from it")
    offered = alert.get_by_role("link").first.inner_text()
    assert offered != rig.damaged_set
    expect(alert).to_contain_text("intact")
    row = page.get_by_role("row").filter(has_text="models").first
    assert "from " in row.locator(".actions").inner_text()
    alert.get_by_role("link", name="Restore the nearest intact one…").click()
    page.wait_for_url("**/dags/restore_backup")
    expect(page.locator("[name=element_backup_id]")).to_have_value(offered)


def test_a_form_that_cannot_be_filled_in_is_said_with_what_to_enter(visit: Visit, rig: Rig) -> None:
    page = visit().new_page()
    page.goto(f"{rig.url}/dags/restore_backup")
    expect(page.get_by_test_id("trigger-dag-button")).to_be_visible()
    page.evaluate(
        """async () => {
          const script = document.createElement("script");
          script.src = "/fastvlm-ops/static/fill_form.js";
          script.dataset.values = JSON.stringify({ no_such_field: "<b>value</b>" });
          script.dataset.patience = "1500";
          await new Promise((loaded) => { script.onload = loaded; document.head.append(script); });
          window.dispatchEvent(new PopStateEvent("popstate"));
        }"""
    )
    note = page.locator("body > [role=alert]")
    expect(note).to_contain_text('{"no_such_field":"<b>value</b>"}')
    assert page.locator("body > [role=alert] b").count() == 0


@pytest.mark.parametrize(
    "address",
    [BACKUPS, DETAIL, FILES, PRUNING, COSTS, RECOVERY],
    ids=["list", "backup", "files", "pruning", "costs", "recovery"],
)
def test_on_a_phone_nothing_stands_out_of_the_page(visit: Visit, rig: Rig, address: str) -> None:
    page = visit(viewport=PHONE).new_page()
    page.goto(rig.url + address)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    "address",
    [BACKUPS, DETAIL, FILES, PRUNING, COSTS, RECOVERY],
    ids=["list", "backup", "files", "pruning", "costs", "recovery"],
)
def test_contrast_is_at_least_aa(visit: Visit, rig: Rig, address: str, scheme: str) -> None:
    page = visit(color_scheme=scheme).new_page()
    page.goto(rig.url + address)
    assert page.evaluate(CONTRAST) == []
    assert is_dark(page) == (scheme == "dark")


def test_airflows_choice_of_light_or_dark_comes_first(visit: Visit, rig: Rig) -> None:
    page = visit(color_scheme="light").new_page()
    page.goto(rig.url + BACKUPS)
    page.evaluate("localStorage.setItem('theme', 'dark')")
    page.reload()
    assert is_dark(page)
    page.emulate_media(color_scheme="dark")
    page.evaluate("localStorage.setItem('theme', 'light')")
    page.reload()
    assert not is_dark(page)


def test_keyboard_alone_is_enough(visit: Visit, rig: Rig) -> None:
    page = visit().new_page()
    page.goto(rig.url + BACKUPS)
    page.keyboard.press("Tab")
    skip = page.get_by_role("link", name="Skip to content")
    expect(skip).to_be_focused()
    assert skip.bounding_box()["y"] >= 0
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    for _ in range(20):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.getClientRects().length") == 1
        if REAL_SET in page.evaluate("document.activeElement.textContent"):
            break
    page.keyboard.press("Enter")
    page.wait_for_url(f"**{DETAIL}")


def test_it_works_without_script(visit: Visit, rig: Rig) -> None:
    page = visit(java_script_enabled=False).new_page()
    page.goto(rig.url + BACKUPS)
    page.get_by_role("link", name=REAL_SET).first.click()
    page.get_by_role("link", name="Files of models").click()
    expect(page.get_by_role("link", name="fastvlm_0.5b.mlpackage")).to_be_visible()


def test_a_broken_definition_file_is_named_and_the_list_stays(visit: Visit, rig: Rig) -> None:
    file = rig.folder / "include" / "components.yaml"
    before = file.read_text()
    file.write_text("version: 1\ncomponents: none\n")
    try:
        page = visit().new_page()
        page.goto(rig.url + BACKUPS)
        expect(page.get_by_role("alert")).to_contain_text("components.yaml")
        expect(page.locator(".card .badge").first).to_have_text("no objective")
        expect(page.locator("table.list tbody tr")).to_have_count(25)
    finally:
        file.write_text(before)


def test_a_catalogue_that_was_never_filled_is_not_an_empty_bucket(visit: Visit, rig: Rig) -> None:
    with taken_away(rig.database):
        page = visit().new_page()
        page.goto(rig.url + BACKUPS)
        expect(page.get_by_role("heading", name="The catalogue was never filled")).to_be_visible()
        assert set(page.locator(".card .badge").all_inner_texts()) == {"unknown"}
        assert page.locator(".card .badge.good").count() == 0


def test_a_database_that_is_none_is_said_and_nothing_is_healthy(visit: Visit, rig: Rig) -> None:
    with taken_away(rig.database):
        rig.database.write_bytes(b"this is no database" * 100)
        page = visit().new_page()
        for address in (BACKUPS, DETAIL, FILES, COSTS):
            assert page.goto(rig.url + address).status == 503
            expect(page.get_by_role("alert")).to_contain_text("The operations database cannot be read")
            assert page.locator(".badge.good").count() == 0


def test_a_bucket_that_is_gone_is_said_and_the_catalogue_stays(visit: Visit, rig: Rig) -> None:
    rig.s3.stop()
    page = visit().new_page()
    began = time.monotonic()
    assert page.goto(rig.url + FILES).status == 502
    assert time.monotonic() - began < 30
    expect(page.get_by_role("alert")).to_contain_text("The files cannot be read")
    assert "turned" not in page.content()  # what was looked at before is not shown as if it were there
    page.goto(rig.url + DETAIL)
    expect(page.get_by_role("heading", name=REAL_SET)).to_be_visible()
    secret = rig.s3.secret_access_key
    assert secret not in page.content()
    assert secret not in rig.log()
    with rig.client(USER) as client:
        assert client.get(BACKUPS).status_code == 200
