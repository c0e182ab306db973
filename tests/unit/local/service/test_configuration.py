"""A replica goes on with the last configuration that was good."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from fastvlm_ops.local.service.configuration import (
    MODELS_FILE,
    SERVICE_FILE,
    ConfigurationKeeper,
    write_configuration,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_configuration(tmp_path / "configuration")
    return tmp_path / "configuration"


def keeper(folder: Path) -> ConfigurationKeeper:
    made = ConfigurationKeeper(folder, folder.parent / "state" / "kept.json")
    made.refresh()
    return made


def change(folder: Path, **values: object) -> None:
    file = folder / SERVICE_FILE
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | values))


def longest(made: ConfigurationKeeper) -> int | None:
    configuration = made.current.configuration
    return configuration.service.max_characters if configuration else None


def test_what_is_written_can_be_read(folder: Path) -> None:
    made = keeper(folder)
    assert made.current.problem is None
    assert longest(made) == 2000


def test_a_change_is_seen(folder: Path) -> None:
    made = keeper(folder)
    change(folder, max_characters=7)
    made.refresh()
    assert (longest(made), made.current.problem) == (7, None)


BROKEN = [
    (SERVICE_FILE, b"version: [", "service.yaml"),
    (SERVICE_FILE, b"", "service.yaml"),
    (SERVICE_FILE, b"\xff\xfe\x00", "service.yaml"),
    (SERVICE_FILE, b"version: 1\nmax_characters: 0\ntags: []\n", "max_characters"),
    (SERVICE_FILE, b"version: 2\n", "version"),
    (SERVICE_FILE, None, "service.yaml"),
    (MODELS_FILE, b"{", "models.json is not valid"),
    (MODELS_FILE, b'{"version": 1, "serve": "../other.mlpackage"}', "models.json is not valid"),
    (MODELS_FILE, b'{"version": 1, "serve": "a.mlpackage", "more": 1}', "models.json is not valid"),
    (MODELS_FILE, None, "models.json cannot be read"),
]


@pytest.mark.parametrize(("name", "content", "message"), BROKEN)
def test_with_a_broken_file_it_goes_on_and_says_so(
    folder: Path, name: str, content: bytes | None, message: str
) -> None:
    made = keeper(folder)
    good = (folder / name).read_bytes()
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    made.refresh()
    assert longest(made) == 2000
    assert message in (made.current.problem or "")
    (folder / name).write_bytes(good)
    made.refresh()
    assert made.current.problem is None


def test_bytes_that_change_while_size_and_times_stay_are_seen(folder: Path) -> None:
    made = keeper(folder)
    file = folder / SERVICE_FILE
    before = file.stat()
    file.write_bytes(b"%" * before.st_size)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    made.refresh()
    assert made.current.problem is not None


def test_a_restart_finds_the_last_good_one(folder: Path) -> None:
    keeper(folder)
    (folder / SERVICE_FILE).write_text("broken: [")
    again = keeper(folder)
    assert longest(again) == 2000
    assert again.current.problem is not None


def test_without_an_earlier_one_there_is_none(folder: Path) -> None:
    (folder / SERVICE_FILE).write_text("broken: [")
    made = keeper(folder)
    assert longest(made) is None
    assert made.current.problem is not None


def test_a_kept_one_that_is_broken_counts_as_none(folder: Path) -> None:
    keeper(folder)
    (folder.parent / "state" / "kept.json").write_text('{"service": 1}')
    (folder / SERVICE_FILE).write_text("broken: [")
    assert longest(keeper(folder)) is None
