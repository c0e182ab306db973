"""Trouble of a device on its way out: raised within a backend, returned by it as a Failure."""

from __future__ import annotations

import re

from fastvlm_ops.core.coreml.devices.interface import Failure, FailureCode

_DETAIL_CHARACTERS = 600

# What Apple's tools are known to say. Their texts are not promised, so that each is only a better name for a
# failure that is one anyhow; first match counts.
_TEXTS = (
    (r"developer mode", FailureCode.DEVELOPER_MODE_OFF),
    (
        r"DeviceLocked|device (is|was) locked|passcode protected|\(Locked\)|reason: locked",
        FailureCode.NOT_READY,
    ),
    (
        r"no space left|not enough (free )?space|insufficient (storage|space)|disk is full",
        FailureCode.NOT_READY,
    ),
    (
        r"invalid code signature|inadequate entitlements|not been explicitly trusted|code ?sign|signing"
        r"|provisioning profile|requires a development team|no account for team|no profiles for",
        FailureCode.SIGNING_FAILED,
    ),
    (
        r"device (was )?disconnected|not connected|connection (to the device )?was (lost|interrupted)|tunnel"
        r"|no longer (available|connected)|device (is unavailable|was not found)|unable to locate device",
        FailureCode.DEVICE_DISCONNECTED,
    ),
)


class DeviceTroubleError(Exception):
    """Something of a device, or of the tools that reach it, went wrong.

    :param code: what kind it is
    :param detail: what happened and what to do
    """

    def __init__(self, code: FailureCode, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.failure = Failure(code, detail)


def trouble(otherwise: FailureCode, what: str, said: str = "") -> DeviceTroubleError:
    """Name a failure by what a tool said of it.

    :param otherwise: the code where the text is of no known kind
    :param what: what was tried
    :param said: by the tool; its end is kept
    """
    said = " ".join(said.split())
    code = next((code for pattern, code in _TEXTS if re.search(pattern, said, re.IGNORECASE)), otherwise)
    return DeviceTroubleError(code, f"{what}: {said[-_DETAIL_CHARACTERS:]}" if said else what)
