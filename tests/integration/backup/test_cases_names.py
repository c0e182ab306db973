"""Names that programs stumble over: restored the same, by the engine and by the reader beside it."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import unicodedata
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fastvlm_ops.core.backup import (
    Repository,
    publish_set,
    restore_snapshot,
    verify_repository,
)
from tests.conftest import ROOT
from tests.integration.backup.conftest import PASSPHRASE, back_up
from tests.trees import describe

if TYPE_CHECKING:
    from fastvlm_ops.local.seaweedfs import SeaweedFS

ODD = {
    "emoji": "🦊 model 👩‍👩‍👧.bin".encode(),
    "flag and modifier": "🇩🇪👍🏽".encode(),
    "composed": unicodedata.normalize("NFC", "é ü ﬁ Å").encode(),
    "decomposed": unicodedata.normalize("NFD", "é ü ﬁ Å").encode(),
    "hangul composed": unicodedata.normalize("NFC", "한글").encode(),
    "hangul decomposed": unicodedata.normalize("NFD", "한글").encode(),
    "right to left": "\u202egnp.exe".encode(),
    "line separator": "a\u2028b\u0085c".encode(),
    "zero width": b"a\xe2\x80\x8bb",
    "byte order mark": b"\xef\xbb\xbfa",
    "newline": b"two\nlines\n",
    "carriage return and tab": b"a\r\tb",
    "escape": b"\x1b[31mred\x07",
    "every byte that is allowed": bytes(range(1, 47)) + bytes(range(48, 256)),
    "latin-1": "Straße".encode("latin-1"),
    "overlong": b"\xc0\xaf",
    "half a surrogate": b"\xed\xa0\x80",
    "quotes": b'"it\'s" `x` $(y) %s {z} \\',
    "option": b"--delete",
    "dots": b"...",
    "hidden": b".fastvlm-restore-0",
    "ends in a dot": b"end.",
    "ends in a space": b"end. ",
    "space": b" ",
    "tilde": b"~",
    "glob": b"*[a-z]?",
    "upper": b"NAME",
    "lower": b"name",
    "device": b"NUL",
    "longest": b"n" * 255,
    "longest in letters": "é".encode() * 127,
    "like base64": b"cGF0aA==",
    "like json": b'{"path": "x"}',
}


def make_odd_tree(root: Path) -> Path:
    """Each name as a folder, in it as a file, and as what a link points to."""
    top = os.fsencode(root)
    os.mkdir(top)
    for number, name in enumerate(ODD.values()):
        folder = os.path.join(top, name)
        os.mkdir(folder)
        with open(os.path.join(folder, name), "wb") as file:
            file.write(b"named %d" % number)
        os.symlink(name, os.path.join(folder, b"link-%d" % number))
    (root / "weights.bin").write_bytes(random.Random(1).randbytes(1_200_000))  # not in one pack with the list
    os.link(os.path.join(top, ODD["latin-1"], ODD["latin-1"]), os.path.join(top, b"second name"))
    return root


@pytest.fixture(scope="module")
def odd_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_odd_tree(tmp_path_factory.mktemp("names") / "source")


def test_they_come_back_equal_and_unchanged_ones_are_recognised(
    repository: Repository, odd_tree: Path, tmp_path: Path, seaweedfs: SeaweedFS
) -> None:
    expected = describe(odd_tree)
    assert len(expected) == 3 * len(ODD) + 3
    first = back_up(repository, odd_tree, "run-1")
    second = back_up(repository, odd_tree, "run-2", "incremental")
    assert (first.warnings, second.warnings) == ((), ())
    assert second.new_bytes < 2048
    result = restore_snapshot(repository, second.snapshot_id, tmp_path / "target")
    assert result.warnings == ()
    assert describe(tmp_path / "target") == expected

    publish_set(
        repository,
        set_id="set-1",
        kind="full",
        run_key="run-1",
        components=["models"],
        timestamp=datetime.now(UTC),
    )
    environment = {
        **os.environ,
        "AWS_ACCESS_KEY_ID": seaweedfs.access_key_id,
        "AWS_SECRET_ACCESS_KEY": seaweedfs.secret_access_key,
        "AWS_ENDPOINT_URL": seaweedfs.endpoint_url,
        "AWS_DEFAULT_REGION": "us-east-1",
        "FASTVLM_PASSPHRASE": PASSPHRASE,
    }
    bucket, prefix = repository.storage.bucket, repository.storage.prefix
    command = [sys.executable, "-I", ROOT / "restore_min.py", bucket, prefix, tmp_path / "by-reader"]
    subprocess.run(command, env=environment, check=True, timeout=60)
    assert describe(tmp_path / "by-reader" / "models") == expected


def test_each_is_named_when_it_is_lost(repository: Repository, odd_tree: Path) -> None:
    """In a form that is text and JSON."""
    back_up(repository, odd_tree, "run-1")
    storage = repository.storage
    pack = max(storage.list("packs/"), key=lambda info: info.size_bytes).name
    data = bytearray(storage.get(pack, limit_bytes=1 << 26))
    for offset in range(100, len(data) - 5000, 500):  # not the list of what lies where, at its end
        data[offset] ^= 1
    storage.put(pack, bytes(data))
    found = verify_repository(Repository(storage, repository.ring, repository.config_line), level="full")
    assert not found.ok
    text = json.dumps(found.as_dict())
    assert json.loads(text) == json.loads(text.encode("ascii"))
    found.text().encode()
    assert found.file_count == len(ODD) + 2
    for name in ("emoji", "composed", "decomposed", "latin-1"):
        shown = ODD[name].decode(errors="backslashreplace")
        assert f"{shown}/{shown}" in {file.path for file in found.files}
