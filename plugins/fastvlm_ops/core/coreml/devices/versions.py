"""Versions of Apple's tools on a worker."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from fastvlm_ops.core.programs import ProgramError, run

_SECONDS = 30.0


def tool_says(arguments: Sequence[str], environment: Mapping[str, str], seconds: float = _SECONDS) -> str:
    """Return what a program prints; nothing where it is not there, or fails.

    :param arguments: the program and its arguments
    :param environment: of it
    :param seconds: that it may take
    """
    try:
        return run(
            arguments, name=arguments[0], environment=environment, timeout_seconds=seconds
        ).text.strip()
    except ProgramError:
        return ""


def xcode_version(environment: Mapping[str, str]) -> str:
    """Return Xcode's version and build, as in ``16.1 16B40``; empty where it is not known."""
    said = tool_says(["xcodebuild", "-version"], environment)
    found = re.match(r"Xcode (\S+)\s+Build version (\S+)", said)
    return f"{found[1]} {found[2]}" if found else ""
