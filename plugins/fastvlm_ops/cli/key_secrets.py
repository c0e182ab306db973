"""Secrets on the command line: asked for, or read from a file or a variable; never arguments."""

from __future__ import annotations

import argparse
import getpass
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from fastvlm_ops.cli.errors import CommandError

if TYPE_CHECKING:
    from fastvlm_ops.core.backup.keys import Secret

MINIMUM_LENGTH = 12  # of a passphrase; what is short is tried out
_NAMES = ("passphrase", "passphrase_env", "passphrase_file", "key_file", "new_key_file")


def add_secret_options(parser: argparse.ArgumentParser, *, prefix: str = "", of: str = "") -> None:
    """Add the options that say where a secret comes from.

    :param parser: of the command
    :param prefix: of their names, such as ``other-``; without one, a key file can be made too
    :param of: what the secret is for, in their help
    """
    group = parser.add_mutually_exclusive_group()
    of = f" {of}" if of else ""
    group.add_argument(f"--{prefix}passphrase", action="store_true", help=f"ask for a passphrase{of}")
    group.add_argument(
        f"--{prefix}passphrase-env", metavar="NAME", help=f"environment variable with a passphrase{of}"
    )
    group.add_argument(f"--{prefix}passphrase-file", metavar="FILE", help=f"file with a passphrase{of}")
    group.add_argument(f"--{prefix}key-file", metavar="FILE", help=f"key file that is there{of}")
    if not prefix:
        group.add_argument(
            "--new-key-file", metavar="FILE", help="make a key file, readable by you alone; none is replaced"
        )


def named(options: argparse.Namespace, *, prefix: str = "") -> bool:
    """Whether one of these options was given."""
    return any(getattr(options, f"{prefix}{name}", None) for name in _NAMES)


def secret_of(options: argparse.Namespace, *, prefix: str = "", confirm: bool = False) -> Secret:
    """The secret that the options say.

    :param options: of the command, of which one was given
    :param prefix: as of :func:`add_secret_options`, with an underscore
    :param confirm: whether it is new: asked for twice, and not too short
    :raises CommandError: it cannot be had
    :raises KeyFileError: a file cannot be used, or is there already
    """
    from fastvlm_ops.core.backup.key_files import KeyFile, read_private

    values = {name: getattr(options, f"{prefix}{name}", None) for name in _NAMES}
    if values["new_key_file"]:
        made = KeyFile.generate()
        made.write(Path(values["new_key_file"]))
        return made
    if values["key_file"]:
        return KeyFile.read(Path(values["key_file"]))
    if values["passphrase_file"]:
        path = Path(values["passphrase_file"])
        return _checked(_text(read_private(path), str(path)), str(path), confirm)
    if values["passphrase_env"]:
        name = values["passphrase_env"]
        return _checked(os.environ.get(name, ""), f"the variable {name}", confirm)
    return _asked(confirm)


def _text(data: bytes, where: str) -> str:
    try:
        return data.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise CommandError(f"{where} is no text; a key file is given by --key-file") from None


def _asked(confirm: bool) -> str:
    if not sys.stdin.isatty():
        raise CommandError("there is no terminal to ask at; use --passphrase-env or --passphrase-file")
    passphrase = getpass.getpass("Passphrase: ")
    if confirm and getpass.getpass("The same again: ") != passphrase:
        raise CommandError("the two are not the same; nothing was changed")
    return _checked(passphrase, "the passphrase", confirm)


def _checked(passphrase: str, where: str, is_new: bool) -> str:
    if not passphrase:
        raise CommandError(f"{where} is empty")
    if is_new and len(passphrase) < MINIMUM_LENGTH:
        raise CommandError(f"{where} is too short: a passphrase has at least {MINIMUM_LENGTH} characters")
    return passphrase
