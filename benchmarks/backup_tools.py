"""The programs under test: their commands, their environments, and what a restore by them brings back."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from benchmarks import peers
from benchmarks.backup_worker import PASSPHRASE_VARIABLE
from benchmarks.running import ROOT
from fastvlm_ops.local.compare import Difference
from fastvlm_ops.local.seaweedfs import SeaweedFS

OURS = "fastvlm-ops"
RESTIC = "restic"
RCLONE = "rclone sync"
AWS = "aws s3 sync"

NOTE = (
    "fastvlm-ops and restic encrypt, deduplicate and keep every snapshot. rclone sync and aws s3 sync only "
    "mirror: they keep one plain copy of each file as it is now and have no snapshot history, so nothing "
    "older can be restored, and what they store is the second day only. aws s3 sync restores the contents "
    "of files, rclone sync their modification times too, the others everything."
)

_PRESENCE = frozenset({"entry", "kind"})
_CONTENTS = _PRESENCE | {"size", "contents"}
Commands = Callable[[str, str], "list[str | Path] | None"]


@dataclass
class Tool:
    """A program under test.

    :param name: of it
    :param version: of it
    :param commands: operation (``initialise``, ``full``, ``incremental``, ``unchanged``, ``restore``) and
        bucket to its command; None where it needs none
    :param environment: for its commands, given a bucket
    :param folder: that its commands run in
    :param target: that it restores to
    :param restores: what may not differ in what it restores (see ``Difference.what``); None for all of it
    :param locks: whether it locks what it stores, so that its bucket has to take locks
    """

    name: str
    version: str
    commands: Commands
    environment: Callable[[str], dict[str, str]]
    folder: Path
    target: Path
    restores: frozenset[str] | None = None
    locks: bool = False

    def must_restore(self, difference: Difference) -> bool:
        """Whether this difference between the tree and what was restored is a fault."""
        if self.restores is None:
            return True
        of_folder = (self.target / difference.path).is_dir()  # the mirrors know of no folders
        return difference.what in (_PRESENCE if of_folder else self.restores)


@dataclass(frozen=True)
class Place:
    """Where the tools work.

    :param server: running S3 server
    :param work: folder for all that is written
    :param tree: that is backed up
    """

    server: SeaweedFS
    work: Path
    tree: Path

    def target(self, tool: str) -> Path:
        """Folder that a program restores to."""
        return self.work / "restored" / tool.replace(" ", "-")

    def environment(self) -> dict[str, str]:
        """Credentials, and a home in which nobody keeps settings."""
        # Python keeps compiled modules, as any installed package has them.
        unwanted = ("AWS_", "RCLONE_", "PYTHONDONTWRITEBYTECODE")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
        return {
            **kept,
            "HOME": str(self.work),
            "AWS_ACCESS_KEY_ID": self.server.access_key_id,
            "AWS_SECRET_ACCESS_KEY": self.server.secret_access_key,
            "AWS_DEFAULT_REGION": self.server.region_name,
            "AWS_EC2_METADATA_DISABLED": "true",
        }


def our_tool(place: Place, *, locks: bool) -> Tool:
    """This package's engine, driven as the DAGs drive it.

    :param place: where
    :param locks: whether it locks what it stores, which then goes with the server only
    """
    target = place.target(OURS)
    passphrase = secrets.token_urlsafe(24)

    def commands(operation: str, bucket: str) -> list[str | Path]:
        worker: list[str | Path] = [sys.executable, "-m", "benchmarks.backup_worker"]
        worker += ["--endpoint-url", place.server.endpoint_url, "--bucket", bucket]
        worker += ["--locks"] if locks else []
        if operation == "initialise":
            return [*worker, "initialise"]
        if operation == "restore":
            return [*worker, "restore", "--target", target]
        kind = "full" if operation == "full" else "incremental"
        places: list[str | Path] = ["--tree", place.tree, "--scratch", place.work / "scratch"]
        return [*worker, "create", "--kind", kind, "--run-key", operation, *places]

    def environment(bucket: str) -> dict[str, str]:
        return {**place.environment(), PASSPHRASE_VARIABLE: passphrase}

    version = metadata.version("fastvlm-ops")
    return Tool(OURS, version, commands, environment, ROOT, target, locks=locks)


def restic_tool(place: Place) -> Tool:
    """restic, with its defaults.

    :raises PeerUnavailableError: it cannot be had
    """
    program = peers.find_restic(ROOT / ".tools" / "restic")
    target = place.target(RESTIC)
    passphrase = secrets.token_urlsafe(24)

    def commands(operation: str, bucket: str) -> list[str | Path]:
        if operation == "initialise":
            return [program, "init", "--quiet"]
        if operation == "restore":
            return [program, "restore", "latest", "--quiet", "--target", target]
        return [program, "backup", "--quiet", "."]

    def environment(bucket: str) -> dict[str, str]:
        return {
            **place.environment(),
            "RESTIC_REPOSITORY": f"s3:{place.server.endpoint_url}/{bucket}",
            "RESTIC_PASSWORD": passphrase,
            "RESTIC_CACHE_DIR": str(place.work / "restic-cache"),
        }

    return Tool(RESTIC, peers.restic_version(program), commands, environment, place.tree, target)


def rclone_tool(place: Place) -> Tool:
    """``rclone sync``, with its defaults, configured by its environment only.

    :raises PeerUnavailableError: it cannot be had
    """
    program = peers.find_rclone()
    target = place.target(RCLONE)

    def commands(operation: str, bucket: str) -> list[str | Path] | None:
        if operation == "initialise":
            return None
        remote = f"peer:{bucket}"
        places: list[str | Path] = [remote, target] if operation == "restore" else [".", remote]
        return [program, "sync", "--quiet", *places]

    def environment(bucket: str) -> dict[str, str]:
        return {
            **place.environment(),
            "RCLONE_CONFIG": "",  # none is looked for
            "RCLONE_CACHE_DIR": str(place.work / "rclone-cache"),
            "RCLONE_CONFIG_PEER_TYPE": "s3",
            "RCLONE_CONFIG_PEER_PROVIDER": "SeaweedFS",
            "RCLONE_CONFIG_PEER_ENV_AUTH": "true",
            "RCLONE_CONFIG_PEER_ENDPOINT": place.server.endpoint_url,
            "RCLONE_CONFIG_PEER_REGION": place.server.region_name,
        }

    restores = _CONTENTS | {"modification time"}
    version = peers.rclone_version(program)
    return Tool(RCLONE, version, commands, environment, place.tree, target, restores)


def aws_tool(place: Place) -> Tool:
    """``aws s3 sync``, with its defaults.

    :raises PeerUnavailableError: it cannot be had
    """
    program = peers.find_aws(ROOT / ".tools" / "awscli")
    target = place.target(AWS)

    def commands(operation: str, bucket: str) -> list[str | Path] | None:
        if operation == "initialise":
            return None
        remote = f"s3://{bucket}"
        places: list[str | Path] = [remote, target] if operation == "restore" else [".", remote]
        return [program, "s3", "sync", "--delete", "--only-show-errors", *places]

    def environment(bucket: str) -> dict[str, str]:
        return {
            **place.environment(),
            "AWS_CONFIG_FILE": str(place.work / "aws-config"),
            "AWS_SHARED_CREDENTIALS_FILE": str(place.work / "aws-credentials"),
            "AWS_ENDPOINT_URL": place.server.endpoint_url,
        }

    return Tool(AWS, peers.aws_version(program), commands, environment, place.tree, target, _CONTENTS)


PEERS = {RESTIC: restic_tool, RCLONE: rclone_tool, AWS: aws_tool}


def find_peers(place: Place) -> tuple[list[Tool], dict[str, str]]:
    """The peers that can be had, and of each its name with its version or why it cannot be had."""
    tools, described = [], {}
    for name, make in PEERS.items():
        try:
            tool = make(place)
        except peers.PeerUnavailableError as error:
            described[name] = str(error)
        else:
            tools.append(tool)
            described[name] = f"{name} {tool.version}"
    return tools, described
