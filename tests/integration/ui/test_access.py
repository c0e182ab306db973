"""Who may see the pages: nobody who is not signed in, and a viewer starts nothing."""

from __future__ import annotations

import re
from urllib.parse import urlencode

import pytest
from fastapi.routing import APIRoute

from fastvlm_ops.local.airflow_stack import USER
from tests.drill_kit import KILLED
from tests.integration.ui.benchmarks import REGRESSED
from tests.integration.ui.conftest import Visit
from tests.integration.ui.drills import run_key
from tests.integration.ui.forecasts import BUSY, key
from tests.integration.ui.history import REAL_SET
from tests.integration.ui.rig import VIEWER, Rig

pytestmark = pytest.mark.integration
PAGES = "/fastvlm-ops"
DETAIL = f"{PAGES}/backups/{REAL_SET}"


def every_address() -> list[str]:
    """The addresses of all routes of the application, with values that exist."""
    from fastvlm_ops.ui.app import create_app

    values = {"set_id": REAL_SET, "component": "models", "name": "site.css"}
    values |= {"service": key(BUSY), "metric": "cpu"}
    values |= {"model": REGRESSED.model, "device": REGRESSED.device, "unit": REGRESSED.compute_unit}
    drill = urlencode({"run": run_key(KILLED)})
    asked = {"drill": f"?{drill}", "evidence": f"?{drill}&name=report.html"}
    addresses = []
    for route in create_app().routes:
        path = getattr(route, "path", None)
        assert path is not None, f"a route that cannot be asked: {route}"
        addresses.append(PAGES + re.sub(r"{(\w+)(:\w+)?}", lambda found: values[found[1]], path))
        addresses[-1] += asked.get(path.rpartition("/")[2], "")
    return addresses


def test_no_route_answers_without_a_cookie(rig: Rig) -> None:
    addresses = every_address()
    assert len(addresses) >= 10
    with rig.client() as nobody, rig.client(USER) as admin:
        for address in addresses:
            refused = nobody.get(address)
            assert refused.status_code == 401, address
            assert REAL_SET not in refused.text, address
            assert BUSY not in refused.text, address
            assert REGRESSED.model not in refused.text, address
            assert KILLED.title not in refused.text, address
            assert admin.get(address, follow_redirects=True).status_code == 200, address
            assert nobody.head(address).status_code in (401, 405), address


def test_every_route_depends_on_who_asks() -> None:
    from airflow.api_fastapi.core_api.security import get_user

    from fastvlm_ops.ui.app import create_app

    def asks(dependant: object) -> bool:
        return any(one.call is get_user or asks(one) for one in dependant.dependencies)  # type: ignore[attr-defined]

    for route in create_app().routes:
        assert isinstance(route, APIRoute), route
        assert asks(route.dependant), route.path


def test_a_forged_token_is_refused(rig: Rig) -> None:
    with rig.client(USER) as client:
        header, body, _ = client.cookies["_token"].split(".")
    for token in (f"{header}.{body}.", f"{header}.{body}.AAAA", "x"):
        with rig.client() as nobody:
            nobody.cookies.set("_token", token)
            assert nobody.get(DETAIL).status_code in (401, 403), token


def test_answers_forbid_what_pages_do_not_need(rig: Rig) -> None:
    with rig.client(USER) as client:
        for address in [*every_address(), f"{PAGES}/no/such/page"]:
            headers = client.get(address).headers
            assert "default-src 'none'" in headers["content-security-policy"], address
            assert "frame-ancestors 'self'" in headers["content-security-policy"], address
            assert "unsafe" not in headers["content-security-policy"], address
            assert headers["cache-control"] == "no-store", address
            assert headers["x-content-type-options"] == "nosniff", address


@pytest.mark.parametrize(
    ("address", "status"),
    [
        ("/backups/no-such-set", 404),
        ("/backups/%3Cscript%3Ealert(1)%3C%2Fscript%3E", 404),
        ("/backups/%3Cimg%20src%3Dx%3E", 422),
        (f"/backups/{REAL_SET}/files/Models", 422),
        (f"/backups/{REAL_SET}/files/other", 404),
        (f"/backups/{REAL_SET}/files/models?path=Li4vLi4", 404),  # ../..
        (f"/backups/{REAL_SET}/files/models?path=%3C", 422),
        (f"/backups/{REAL_SET}/files/models?start=-1", 422),
        ("/backups?before=1%27%3B", 422),
        ("/backups?kind=%3Cb%3E", 422),
        ("/capacity?as_of=now", 422),
        ("/capacity?as_of=2026-13-41T99Z", 422),
        ("/capacity?start=-1", 422),
        (f"/capacity/{key(BUSY)}/disk", 422),
        (f"/capacity/{key(BUSY)}/cpu?as_of=1999-01-01T00Z", 404),
        (f"/capacity/{key('no such service')}/cpu", 404),
        (f"/capacity/{key('<script>alert(1)</script>')}/cpu", 404),
        ("/capacity/_w/cpu", 404),  # is no text
        ("/capacity/%3Cb%3E/cpu", 422),
        ("/capacity/accuracy?metric=%3Cb%3E", 422),
        ("/capacity/accuracy?days=0", 422),
        (f"{REGRESSED.address()}?days=0", 422),
        (f"{REGRESSED.address()}?run=coreml_benchmark/none", 404),
        (f"/coreml/{REGRESSED.model}/{REGRESSED.device}/GPU_ONLY", 422),
        (f"/coreml/{REGRESSED.model}/no-such-device/ALL", 404),
        ("/coreml/%3Cscript%3E/phone/ALL", 422),
        ("/coreml/..%2F..%2Fetc/phone/ALL", 404),
        (f"/coreml?run={'x' * 501}", 422),
        ("/coreml?start=-1", 422),
        ("/static/..%2Fapp.py", 404),
        ("/static/app.py", 404),
    ],
)
def test_what_cannot_be_right_is_refused(rig: Rig, address: str, status: int) -> None:
    with rig.client(USER) as client:
        answer = client.get(PAGES + address)
    assert answer.status_code == status
    assert "<script>alert" not in answer.text
    assert "<img" not in answer.text
    assert "Traceback" not in answer.text


def test_signed_out_a_person_is_told_so(visit: Visit, rig: Rig) -> None:
    page = visit(None).new_page()
    page.goto(f"{rig.url}{DETAIL}")
    assert page.get_by_role("heading", name="Signed out").is_visible()
    page.get_by_role("link", name="Open Airflow").click()
    page.wait_for_url("**/auth/login**")


def test_a_viewer_looks_and_cannot_restore(visit: Visit, rig: Rig) -> None:
    page = visit(VIEWER).new_page()
    page.goto(f"{rig.url}{DETAIL}")
    assert page.get_by_role("link", name="Files of models").is_visible()
    assert page.get_by_text("Restore", exact=False).filter(has_text="…").count() == 0
    assert page.locator("[data-restore]").count() == 0
    with rig.client(VIEWER) as client:
        body = {"logical_date": None, "conf": {"backup_id": REAL_SET}}
        token = {"Authorization": f"Bearer {client.cookies['_token']}"}
        refused = client.post("/api/v2/dags/restore_backup/dagRuns", json=body, headers=token)
    assert refused.status_code == 403
