"""What of an error a page may show."""

from __future__ import annotations


def told(error: Exception) -> str:
    """Return what a page may show: own errors say what to do; those of drivers may quote a password.

    :param error: any
    """
    if type(error).__module__.startswith("fastvlm_ops."):
        return str(error)
    return f"{type(error).__name__}; the api-server's log tells more."
