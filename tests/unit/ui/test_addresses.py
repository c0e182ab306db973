"""Anything goes through an address and comes back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastvlm_ops.links.coreml import PAGES
from fastvlm_ops.ui import URL_PREFIX, URL_ROUTE
from fastvlm_ops.ui.addresses import LONGEST, AddressError, coreml_detail, coreml_list, decode, encode


@given(st.binary(max_size=300))
def test_anything_goes_through_an_address(value: bytes) -> None:
    assert decode(encode(value)) == value
    assert set(encode(value)) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


@pytest.mark.parametrize("text", ["a", "a b", "%", "ü", "A" * (LONGEST + 1)])
def test_other_addresses_are_refused(text: str) -> None:
    with pytest.raises(AddressError):
        decode(text)


def test_addresses_of_core_ml_pages_are_those_that_links_of_tasks_write() -> None:
    run_key = "coreml_benchmark/scheduled__2026-11-24T01:00:00+00:00"
    asked = "run=coreml_benchmark%2Fscheduled__2026-11-24T01%3A00%3A00%2B00%3A00"
    assert (coreml_list(), coreml_list(run_key)) == ("/coreml", f"/coreml?{asked}")
    names = ("Encoder.v2", "iphone-15-pro", "CPU_AND_NE")
    assert coreml_detail(*names) == "/coreml/Encoder.v2/iphone-15-pro/CPU_AND_NE"
    assert coreml_detail(*names, run_key) == f"/coreml/Encoder.v2/iphone-15-pro/CPU_AND_NE?{asked}"
    assert coreml_detail("a/b?c", "d", "e") == "/coreml/a%2Fb%3Fc/d/e"
    # Links stand below the pages in the order of imports, so they write the address themselves.
    assert f"/plugin/{URL_ROUTE}{URL_PREFIX}{coreml_list()}" == PAGES
