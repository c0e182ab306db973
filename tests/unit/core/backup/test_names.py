"""The package gives each of its names when it is first asked for."""

from __future__ import annotations

import subprocess
import sys

import pytest

from fastvlm_ops.core import backup


def test_every_name_is_there() -> None:
    assert sorted(backup._MODULES) == sorted(backup.__all__)
    for name in backup.__all__:
        assert getattr(backup, name).__name__ == name


def test_another_name_is_refused_as_by_any_module() -> None:
    with pytest.raises(AttributeError, match="restore_everything"):
        backup.restore_everything  # noqa: B018 - the access is the test


def test_numpy_does_not_come_before_it_is_needed() -> None:
    program = (
        "import sys\nfrom fastvlm_ops.core import backup\n"
        "backup.create_client, backup.open_repository, backup.FolderSource\n"
        "sys.exit('numpy' in sys.modules or 'boto3' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
