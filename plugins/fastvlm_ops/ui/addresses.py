"""Anything as part of an address, and back; and the addresses of pages that others lead to."""

from __future__ import annotations

import base64
import binascii
from urllib.parse import quote, urlencode

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


def coreml_list(run_key: str = "") -> str:
    """Return where all models stand, below the pages' root.

    :param run_key: only what this run has measured; empty for the newest of each
    """
    return "/coreml" + _asked(run_key)


def coreml_detail(model: str, device: str, compute_unit: str, run_key: str = "") -> str:
    """Return the page of a model on a device with a compute unit, below the pages' root.

    :param model: as in ``coreml.yaml``
    :param device: likewise
    :param compute_unit: likewise
    :param run_key: whose verdicts are shown; empty for the newest
    """
    names = "/".join(quote(name, safe="") for name in (model, device, compute_unit))
    return f"/coreml/{names}{_asked(run_key)}"


def drill(run_key: str) -> str:
    """Return the page of a drill, below the pages' root.

    :param run_key: ``<dag id>/<run id>``
    """
    return f"/disaster_recovery/drill{_asked(run_key)}"


def drill_evidence(run_key: str, name: str) -> str:
    """Return where a file of a drill's evidence is to be had, below the pages' root.

    :param run_key: ``<dag id>/<run id>``
    :param name: of the file
    """
    return f"/disaster_recovery/evidence?{urlencode({'run': run_key, 'name': name})}"


def _asked(run_key: str) -> str:
    return f"?{urlencode({'run': run_key})}" if run_key else ""
