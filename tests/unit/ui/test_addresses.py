"""Anything goes through an address and comes back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastvlm_ops.ui.addresses import LONGEST, AddressError, decode, encode


@given(st.binary(max_size=300))
def test_anything_goes_through_an_address(value: bytes) -> None:
    assert decode(encode(value)) == value
    assert set(encode(value)) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


@pytest.mark.parametrize("text", ["a", "a b", "%", "ü", "A" * (LONGEST + 1)])
def test_other_addresses_are_refused(text: str) -> None:
    with pytest.raises(AddressError):
        decode(text)
