"""Anything as part of an address, and back."""

from __future__ import annotations

import base64
import binascii

LONGEST = 8_192
ALPHABET = r"A-Za-z0-9_-"


class AddressError(Exception):
    """A part of an address is not what :func:`encode` returns."""


def encode(value: bytes) -> str:
    """Return bytes as text that an address can hold."""
    return base64.urlsafe_b64encode(value).decode().rstrip("=")


def decode(text: str) -> bytes:
    """Undo :func:`encode`.

    :raises AddressError: it is not what that returns
    """
    try:
        if len(text) > LONGEST:
            raise AddressError
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise AddressError from None
