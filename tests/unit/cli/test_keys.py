"""``fastvlm-ops keys`` before a real bucket."""

from __future__ import annotations

import getpass
import json
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fastvlm_ops.cli import main
from fastvlm_ops.core.backup import Repository, WrongKeyError, keys, open_repository
from fastvlm_ops.core.backup.key_files import KeyFile
from fastvlm_ops.core.backup.key_slots import read_keys
from fastvlm_ops.core.backup.versions import Locked
from fastvlm_ops.hooks.s3 import BackupRepositoryHook
from tests.airflow_kit import PASSPHRASE, set_connection

OTHER = "another passphrase of the tests"

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(
    connection: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """Runs a command; gives its exit code and all that it said, which has no secret in it."""
    monkeypatch.setattr(keys, "SCRYPT", {"n": 2, "r": 1, "p": 1})
    monkeypatch.setenv("OTHER", OTHER)

    def run(*arguments: str | Path) -> tuple[int, str]:
        code = main(["keys", *map(str, arguments)])
        captured = capsys.readouterr()
        said = captured.out + captured.err
        assert PASSPHRASE not in said
        assert OTHER not in said
        return code, said

    return run


@pytest.fixture
def repository(run: Run) -> Repository:
    code, said = run("create")
    repository = BackupRepositoryHook().open_repository()
    assert (code, repository.repository_id in said) == (0, True)
    return repository


def slots(repository: Repository) -> list[dict[str, Any]]:
    return [slot.as_dict() for slot in read_keys(repository).slots]


def opens(repository: Repository, secret: keys.Secret) -> bool:
    try:
        open_repository(repository.storage, secret)
    except WrongKeyError:
        return False
    return True


def test_a_passphrase_is_changed(run: Run, repository: Repository) -> None:
    (mine,) = slots(repository)
    assert run("add", "--passphrase-env", "OTHER", "--label", "from 2026 on")[0] == 0
    code, said = run("list")
    assert code == 0
    lines = said.splitlines()
    assert lines[0].split() == ["SLOT", "KIND", "CREATED", "READS", "EPOCHS", "TO", "LABEL"]
    assert next(line for line in lines if line.endswith("in use")).startswith(mine["slot"])
    assert any(line.split()[-4:] == ["1", "from", "2026", "on"] for line in lines)

    code, said = run("remove", mine["slot"][:8], "--yes")
    assert (code, "no secret at hand opens" in said) == (1, True)
    code, said = run("remove", mine["slot"][:8], "--other-passphrase-env", "OTHER")
    assert code == 0
    assert f"would remove key slot {mine['slot']}" in said
    assert len(slots(repository)) == 2
    code, said = run("remove", mine["slot"], "--other-passphrase-env", "OTHER", "--yes")
    assert code == 0
    assert "give the connection fastvlm_s3 the other secret now" in said
    assert not opens(repository, PASSPHRASE)
    assert opens(repository, OTHER)
    assert run("list")[0] == 1  # until the connection has it


def test_a_key_file_is_made(run: Run, repository: Repository, tmp_path: Path) -> None:
    path = tmp_path / "repository.key"
    code, said = run("add", "--new-key-file", path)
    assert code == 0
    assert f"{path} holds the key" in said
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    key = KeyFile.read(path)
    assert key.data.decode() not in said
    assert opens(repository, key)
    code, said = run("add", "--new-key-file", path)
    assert (code, "is there already" in said) == (1, True)
    code, said = run("add", "--key-file", path)
    assert (code, "this secret opens key slot" in said) == (1, True)
    assert KeyFile.read(path) == key
    assert len(slots(repository)) == 2
    code, said = run("add", "--new-key-file", tmp_path / "second", "--label", "x" * 100)
    assert code == 1
    assert not (tmp_path / "second").exists(), "a key that opens nothing is not left behind"


def test_rotating_shows_who_would_get_the_key(run: Run, repository: Repository) -> None:
    run("add", "--passphrase-env", "OTHER", "--label", "spare")
    mine, other = sorted(slots(repository), key=lambda slot: str(slot["label"]))
    code, said = run("rotate")
    assert code == 0
    assert "epoch 2 would be made" in said
    assert said.count("would get its key: ") == 2
    assert read_keys(repository).newest_epoch == 1
    code, said = run("rotate", "--without", other["slot"][:8], "--yes")
    assert code == 0
    assert f"has its key: {mine['slot']}" in said
    assert f"left out: {other['slot']}" in said
    found = json.loads(run("list", "--json")[1])
    assert found["newest_epoch"] == 2
    assert {slot["slot"]: slot["reads_to"] for slot in found["slots"]} == {mine["slot"]: 2, other["slot"]: 1}
    assert "left out of later epochs" in run("list")[1]
    code, said = run("rotate", "--without", mine["slot"])
    assert (code, "the slot in use would be left out" in said) == (1, True)
    code, said = run("rotate", "--without", "nothing")
    assert (code, "0 key slots begin with 'nothing'" in said) == (1, True)


def test_renewing_puts_a_slot_in_the_place_of_the_old_one(run: Run, repository: Repository) -> None:
    (old,) = slots(repository)
    code, said = run("add", "--renew")
    assert code == 0
    assert f"in place of {old['slot']}" in said
    (new,) = slots(repository)
    assert new["slot"] != old["slot"]
    assert opens(repository, PASSPHRASE)


def test_checking_names_what_is_damaged(run: Run, repository: Repository) -> None:
    run("add", "--passphrase-env", "OTHER")
    code, said = run("check")
    assert code == 0
    assert "the passphrase of the connection opens the repository, epoch 1" in said
    assert "2 key slots, 1 epoch: ok" in said
    mine = open_repository(repository.storage, PASSPHRASE).ring.opened
    assert mine is not None
    (other,) = [slot["slot"] for slot in slots(repository) if slot["slot"] != mine.slot]
    name = keys.slot_name(repository.repository_id, other)
    repository.storage.put(name, b"{}")
    code, said = run("check")
    assert code == 1
    assert f"{name} is not a key slot" in said
    assert "DAMAGED" in said


def test_checking_tries_each_secret_of_the_connection(
    run: Run,
    repository: Repository,
    connection: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    KeyFile.generate().write(tmp_path / "key")
    extra = {**connection["extra"], "repository_key_file": str(tmp_path / "key")}
    set_connection(monkeypatch, {**connection, "extra": extra})
    code, said = run("check")
    assert code == 1
    assert "the key file fits none of the 1 key slot(s)" in said
    assert "the passphrase of the connection opens" in said


def test_a_locked_slot_is_said_to_be(
    run: Run, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datetime import UTC, datetime

    from fastvlm_ops.core.backup import S3Storage

    until = datetime(2027, 3, 1, 12, 30, tzinfo=UTC)
    monkeypatch.setattr(S3Storage, "remove", lambda self, name: Locked(until))
    run("add", "--passphrase-env", "OTHER", "--label", "spare")
    (other,) = [slot["slot"] for slot in slots(repository) if slot["label"]]
    code, said = run("remove", other, "--yes")
    assert code == 1
    assert "is locked until 2027-03-01 12:30 UTC, and opens the repository as before" in said
    assert f"keys rotate --without {other[:8]}" in said


def test_passphrases_are_asked_for_at_a_terminal_alone(
    run: Run, repository: Repository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    code, said = run("add", "--passphrase")
    assert (code, "there is no terminal to ask at; use --passphrase-env" in said) == (1, True)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    answers = iter([OTHER, "a typing error", OTHER, OTHER, "too short", "too short"])
    monkeypatch.setattr(getpass, "getpass", lambda prompt: next(answers))
    code, said = run("add", "--passphrase")
    assert (code, "the two are not the same" in said) == (1, True)
    assert run("add", "--passphrase")[0] == 0
    assert opens(repository, OTHER)
    code, said = run("add", "--passphrase")
    assert (code, "at least 12 characters" in said) == (1, True)


def test_where_secrets_may_come_from(run: Run, repository: Repository, tmp_path: Path) -> None:
    for arguments, message in (
        (("add",), "say what is to open it"),
        (("add", "--passphrase-env", "ABSENT"), "the variable ABSENT is empty"),
        (("add", "--renew", "--passphrase-env", "OTHER"), "give no other"),
        (("add", "--passphrase-file", tmp_path / "absent"), "cannot be read: No such file"),
        (("list", "--connection", "absent"), "Connection 'absent': is not defined"),
    ):
        code, said = run(*arguments)
        assert (code, message in said) == (1, True), said
    path = tmp_path / "passphrase"
    path.write_text(f"{OTHER}\n")
    code, said = run("add", "--passphrase-file", path)
    assert (code, "can be read or written by others" in said) == (1, True)
    path.chmod(0o600)
    assert run("add", "--passphrase-file", path)[0] == 0
    assert opens(repository, OTHER)
    with pytest.raises(SystemExit):  # a secret is no argument
        run("add", "--passphrase", OTHER)


def test_without_a_repository_it_says_so(run: Run) -> None:
    code, said = run("list")
    assert (code, "there is no backup repository at" in said) == (1, True)
