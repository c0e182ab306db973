"""The pages of drills in Chromium. The last tests take away what the others need."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from urllib.parse import quote, urlencode

import pytest
from playwright.sync_api import Locator, Page, expect

from fastvlm_ops.core.disaster_recovery.lever import pull_lever
from fastvlm_ops.core.store import open_store
from fastvlm_ops.core.store.artefacts import list_artefacts
from fastvlm_ops.local.airflow_stack import USER
from fastvlm_ops.ui import addresses
from tests import drill_kit as kit
from tests.integration.ui import drills
from tests.integration.ui.conftest import Visit
from tests.integration.ui.looking import CONTRAST, PHONE, is_dark, taken_away, watched
from tests.integration.ui.rig import BUCKET, VIEWER, Rig

pytestmark = pytest.mark.integration
ROOT = "/fastvlm-ops"
LIST = f"{ROOT}/disaster_recovery"
FAILED = ROOT + addresses.drill(drills.run_key(kit.PRIMARY))
UNSURE = ROOT + addresses.drill(drills.run_key(kit.HUNG))
TEST = ROOT + addresses.drill(drills.run_key(kit.RESTORE))
REFUSED = ROOT + addresses.drill(drills.run_key(kit.REFUSED))
ODD = ROOT + addresses.drill(f"disaster_recovery_{drills.ODD.scenario}/{drills.HOSTILE_RUN}")
PAGES = {"list": LIST, "failed": FAILED, "inconclusive": UNSURE, "restore test": TEST, "refused": REFUSED}


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """Airflow with a year of drills, and nothing else."""
    rig = Rig(tmp_path_factory.mktemp("ui"))
    try:
        rig.start()
        drills.add_drills(rig)
        drills.add_odd_drills(rig)
        yield rig
    finally:
        rig.stop()


def card(page: Page, title: str) -> Locator:
    """What the list says of a scenario."""
    return page.locator(".scenario").filter(has=page.get_by_role("heading", name=title, exact=True))


def test_drills_stand_in_airflows_navigation(visit: Visit, rig: Rig) -> None:
    page = visit().new_page()
    wrong = watched(page, rig)
    page.goto(f"{rig.url}/plugin/operations{ROOT}/backups")
    frame = page.frame_locator("iframe")
    frame.get_by_role("link", name="Drills", exact=True).click()
    expect(frame.get_by_role("heading", name="Drills", exact=True)).to_be_visible()
    frame.get_by_role("link", name="The primary database is lost", exact=True).click()
    expect(frame.get_by_role("heading", name=kit.PRIMARY.title)).to_be_visible()
    page.wait_for_url(f"**/plugin/operations{FAILED}")  # the address can be sent to somebody
    assert wrong == []


def test_what_is_not_proven_comes_first(visit: Visit, rig: Rig) -> None:
    page = visit(VIEWER).new_page()
    page.goto(rig.url + LIST)
    badges = [badge.inner_text() for badge in page.locator(".scenario .card-top .badge").all()]
    assert badges[:4] == ["fail", "fail", "aborted", "inconclusive"]
    assert badges[4:7] == ["pass"] * 3
    assert badges[7:] == ["refused", "pass"]  # which no file has any more
    assert page.locator(".card .figure").all_inner_texts()[:3] == ["3 of 7", "2", "2"]


def test_a_scenario_has_its_figures_beside_their_objectives_and_its_history(visit: Visit, rig: Rig) -> None:
    page = visit().new_page()
    page.goto(rig.url + LIST)
    said = card(page, "The primary database is lost")
    expect(said).to_contain_text("61.4 s of 60 s")
    expect(said).to_contain_text("1.6 s of 1 s")
    squares = said.locator(".verdict-square")
    expect(squares).to_have_count(12)
    assert [square.inner_text()[:1] for square in squares.all()] == [*"✓✓✓✓✗✓✓✓✓✓✓✗"]
    track = said.locator(".d-gauge").first
    value = sum(float(part.get_attribute("width") or 0) for part in track.locator("[class*=rest]").all())
    mark = float(track.locator(".d-gauge-mark").get_attribute("x1") or 0)
    assert value / mark == pytest.approx(61.36 / 60, abs=0.02)
    unknown = card(page, "The configuration is corrupted")
    expect(unknown).to_contain_text("not measured of 60 s")
    expect(card(page, "A service process hangs")).to_contain_text("runs now")


def test_only_who_may_start_a_drill_is_offered_it(visit: Visit, rig: Rig) -> None:
    page = visit(VIEWER).new_page()
    page.goto(rig.url + LIST)
    assert page.locator("a[data-restore]").count() == 0
    page = visit().new_page()
    page.goto(f"{rig.url}/plugin/operations{LIST}")
    page.frame_locator("iframe").get_by_role("link", name="Drill… A service process is killed").click()
    form = page.get_by_role("dialog")
    expect(form).to_contain_text("disaster_recovery_service_process_killed")
    assert rig.log().count("POST /api/v2/dags") == 0  # it is only shown


def test_what_users_saw_is_drawn_to_scale(visit: Visit, rig: Rig) -> None:
    page = visit().new_page()
    page.goto(rig.url + FAILED)
    picture = page.locator("svg[aria-labelledby^=users]")
    fault = float(picture.locator(".d-mark-fault").get_attribute("x1") or 0)
    recovered = float(picture.locator(".d-mark-recovered").get_attribute("x1") or 0)
    objective = float(picture.locator(".d-objective").get_attribute("x1") or 0)
    assert (recovered - fault) / (objective - fault) == pytest.approx(61.36 / 60, abs=0.005)
    outage = picture.locator(".d-outage").filter(has_text="requests failed")
    assert float(outage.get_attribute("x") or 0) == pytest.approx(fault, abs=2)
    assert float(outage.get_attribute("width") or 0) == pytest.approx(recovered - fault, abs=2)
    lost = picture.locator(".d-write-lost").get_attribute("d") or ""
    assert 10 <= lost.count("M") <= 32  # several may stand at one place
    assert "61.4 s" in (picture.locator("desc").text_content() or "")


def test_steps_commands_and_lost_rows_are_there(visit: Visit, rig: Rig) -> None:
    page = visit().new_page()
    page.goto(rig.url + FAILED)
    step = page.locator("table.steps tbody").filter(has=page.get_by_text("validate recovery", exact=True))
    expect(step).to_contain_text("32 acknowledged rows are missing")
    expect(step.locator(".badge.bad")).to_have_count(2)
    expect(page.locator(".commands li")).to_have_count(5)
    expect(page.locator(".commands")).to_contain_text("pg_rewind --target-pgdata database-1")
    page.get_by_text("32 rows, seconds from the fault").click()
    expect(page.get_by_role("region", name="Lost writes").locator("tbody tr")).to_have_count(32)
    expect(page.locator(".improvements li")).to_have_count(3)


def test_evidence_is_saved_and_is_what_was_stored(visit: Visit, rig: Rig) -> None:
    page = visit(VIEWER).new_page()
    page.goto(rig.url + FAILED)
    with open_store(f"sqlite:///{rig.database}") as store:
        stored = {one.name: one.sha256 for one in list_artefacts(store, drills.run_key(kit.PRIMARY))}
    assert {"evidence.json", "report.html", "report.md", "journal.json", "hashes.txt"} < set(stored)
    for name, digest in stored.items():
        with page.expect_download() as started:
            page.get_by_role("link", name=name, exact=True).click()
        saved = started.value
        assert saved.suggested_filename == f"primary_database_lost-{name}"
        assert hashlib.sha256(saved.path().read_bytes()).hexdigest() == digest


def test_a_report_is_never_shown_as_a_page_of_ours(rig: Rig) -> None:
    with rig.client(USER) as client:
        answer = client.get(ROOT + addresses.drill_evidence(drills.run_key(kit.PRIMARY), "report.html"))
    assert answer.headers["content-disposition"].startswith("attachment")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("address", "status"),
    [
        (f"/drill?{urlencode({'run': 'disaster_recovery_restore_test/none'})}", 404),
        (f"/drill?{urlencode({'run': 'backup_full/manual'})}", 404),
        ("/drill", 422),
        (f"/evidence?{urlencode({'run': drills.run_key(kit.PRIMARY), 'name': 'other.txt'})}", 404),
        (f"/evidence?{urlencode({'run': drills.run_key(kit.PRIMARY), 'name': '../x'})}", 422),
        (f"/evidence?{urlencode({'run': 'backup_full/manual', 'name': 'report.html'})}", 404),
        ("?scenario=" + quote("<script>"), 422),
        ("?verdict=maybe", 422),
    ],
)
def test_addresses_that_cannot_be_right_are_refused(rig: Rig, address: str, status: int) -> None:
    with rig.client(USER) as client:
        assert client.get(LIST + address).status_code == status


def test_hostile_text_stays_text(visit: Visit, rig: Rig) -> None:
    page = visit().new_page()
    wrong = watched(page, rig)
    page.goto(rig.url + ODD)
    expect(page.get_by_role("heading", level=1)).to_contain_text("<script>alert('x')</script>\\u202e")
    expect(page.locator(".commands")).to_contain_text("<script>alert('x')</script>")
    page.goto(rig.url + LIST)
    assert wrong == []
    assert page.locator("script").count() == 1


def test_the_list_is_filtered_and_has_pages(visit: Visit, rig: Rig) -> None:
    page = visit().new_page()
    page.goto(rig.url + LIST)
    rows = page.locator("table.drills tbody tr")
    expect(rows).to_have_count(20)
    page.get_by_role("link", name="Further").click()
    expect(page.get_by_role("link", name="Back", exact=True)).to_be_visible()
    page.locator("select[name=verdict]").select_option("FAIL")
    page.get_by_role("button", name="Show").click()
    expect(rows).to_have_count(4)
    page.locator("select[name=scenario]").select_option("restore_test")
    page.get_by_role("button", name="Show").click()
    expect(page.get_by_text("Nothing like that")).to_be_visible()
    page.goto(f"{rig.url}{LIST}?verdict=dry+run")
    expect(rows).to_have_count(1)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("address", PAGES.values(), ids=PAGES)
def test_contrast_is_at_least_aa(visit: Visit, rig: Rig, address: str, scheme: str) -> None:
    page = visit(color_scheme=scheme).new_page()
    page.goto(rig.url + address)
    assert page.evaluate(CONTRAST) == []
    assert is_dark(page) == (scheme == "dark")


@pytest.mark.parametrize("address", PAGES.values(), ids=PAGES)
def test_a_phone_scrolls_in_one_direction(visit: Visit, rig: Rig, address: str) -> None:
    page = visit(viewport=PHONE).new_page()
    page.goto(rig.url + address)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_it_works_without_script(visit: Visit, rig: Rig) -> None:
    page = visit(java_script_enabled=False).new_page()
    page.goto(rig.url + LIST)
    card(page, "A service process is killed").get_by_role(
        "link", name="A service process is killed"
    ).first.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name=kit.KILLED.title)).to_be_visible()


def test_the_safety_lever_is_shown(visit: Visit, rig: Rig) -> None:
    page = visit().new_page()
    page.goto(rig.url + LIST)
    expect(page.get_by_text("drills are allowed", exact=False)).to_be_visible()
    with open_store(f"sqlite:///{rig.database}") as store:
        pull_lever(store, "stopped", reason="a launch is on", by="somebody")
        page.reload()
        pull_lever(store, "allowed", reason="it is over", by="somebody")
    expect(page.get_by_text("no drill breaks anything")).to_be_visible()
    expect(page.get_by_text("somebody")).to_contain_text("a launch is on")


def test_a_fault_that_is_left_is_loud(visit: Visit, rig: Rig) -> None:
    key = drills.add_left_fault(rig)
    page = visit().new_page()
    page.goto(rig.url + LIST)
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("longer than it may be")
    expect(alert).to_contain_text("process of replica-1 killed")
    expect(alert).to_contain_text("the control socket did not answer")
    page.goto(rig.url + ROOT + addresses.drill(key))
    expect(page.get_by_role("alert")).to_contain_text("The fault may still be there")
    expect(page.get_by_text("No evidence is stored")).to_be_visible()


def test_a_broken_scenario_is_named_and_the_others_stay(visit: Visit, rig: Rig) -> None:
    file = rig.folder / "include" / "disaster_recovery" / "service_hung.yaml"
    before = file.read_text()
    file.write_text("version: 1\ntitle: [none]\n")
    try:
        page = visit().new_page()
        page.goto(rig.url + LIST)
        expect(page.get_by_text("Not every scenario can be read")).to_be_visible()
        expect(page.locator(".problem").first).to_contain_text("service_hung.yaml")
        expect(card(page, "A service process is killed")).to_be_visible()
    finally:
        file.write_text(before)


def test_evidence_that_is_no_more_what_it_was_is_refused(rig: Rig) -> None:
    key = drills.run_key(kit.KILLED)
    with open_store(f"sqlite:///{rig.database}") as store:
        uri = next(one.uri for one in list_artefacts(store, key) if one.name == "report.md")
    rig.s3.client().put_object(Bucket=BUCKET, Key=uri.removeprefix(f"s3://{BUCKET}/"), Body=b"PASS")
    with rig.client(USER) as client:
        answer = client.get(ROOT + addresses.drill_evidence(key, "report.md"))
    assert answer.status_code == 502
    assert "SHA-256" in answer.text


def test_without_the_database_it_is_said_what_is_not_known(visit: Visit, rig: Rig) -> None:
    with taken_away(rig.database):
        rig.database.mkdir()
        try:
            page = visit().new_page()
            for address in (LIST, FAILED):
                page.goto(rig.url + address)
                expect(page.get_by_role("alert")).to_contain_text("cannot be read")
                expect(page.get_by_role("alert")).to_contain_text("whether a fault is still there")
        finally:
            rig.database.rmdir()
