"""What may stand in names and paths that reach Apple's tools.

coremltools puts credentials and paths into a shell's command line as they are. Nothing that a shell would
read gets that far: all of it is checked here first.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path

from fastvlm_ops.core.coreml.devices.interface import FailureCode
from fastvlm_ops.core.coreml.devices.trouble import DeviceTroubleError

DEFAULT_BUNDLE = "com.coremltools.modelrunnerd"  # that of coremltools' own project

_TEAM = re.compile(r"[A-Z0-9]{10}", re.ASCII)
_UUID = re.compile(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}", re.ASCII)
_BUNDLE = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*(\.[A-Za-z0-9-]+)+", re.ASCII)
_IDENTIFIER = re.compile(r"[0-9A-Za-z][0-9A-Za-z-]{7,63}", re.ASCII)
_PATH = re.compile(r"/[\w./+@-]*")  # letters of any script, no space and nothing that a shell would read


@dataclass(frozen=True)
class Signing:
    """What the runner app is signed with.

    :param team: of the Apple Developer account; Xcode makes a profile by itself then
    :param profile: UUID of a provisioning profile instead
    :param bundle: the app's identifier, which a profile must fit
    """

    team: str = field(default="", repr=False)
    profile: str = field(default="", repr=False)
    bundle: str = DEFAULT_BUNDLE


def hashed_identifier(identifier: str, salt: str = "") -> str:
    """Return what stands for a device's identifier in results.

    :param identifier: of the device, which no result holds
    :param salt: without which it cannot be found by trying all identifiers
    """
    return hashlib.sha256(f"{salt}\0{identifier}".encode()).hexdigest()[:16]


def check_signing(signing: Signing) -> None:
    """Refuse credentials that are of no known form.

    :raises DeviceTroubleError: one of them is not; its text is not repeated
    """
    forms = (
        ("development team", signing.team, _TEAM, "ten capital letters and digits"),
        ("provisioning profile", signing.profile, _UUID, "a UUID"),
        ("bundle identifier", signing.bundle, _BUNDLE, "as in com.example.runner"),
    )
    for name, value, form, right in forms:
        if (value or name == "bundle identifier") and not form.fullmatch(value):
            detail = f"the {name} of the connection has a wrong form; it must be {right}"
            raise DeviceTroubleError(FailureCode.SIGNING_FAILED, detail)


def check_identifier(identifier: str) -> None:
    """Refuse a device's identifier or UDID that is of no known form.

    :raises DeviceTroubleError: it is not
    """
    if not _IDENTIFIER.fullmatch(identifier):
        detail = "the device's identifier has a wrong form; take one that xcrun devicectl list devices shows"
        raise DeviceTroubleError(FailureCode.DEVICE_MISSING, detail)


def check_path(path: Path, what: str) -> None:
    """Refuse a path that a shell would read as more than a path.

    :param path: absolute
    :param what: for the message
    :raises DeviceTroubleError: it has other characters than letters, digits and ``/ . _ + @ -``
    """
    if not _PATH.fullmatch(str(path)):
        detail = f"the path of {what} may have letters, digits and / . _ + @ - only: {str(path)!r}"
        raise DeviceTroubleError(FailureCode.BUILD_FAILED, detail)
