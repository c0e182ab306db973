"""The backup operators, one by one: what they refuse, and that they say why before anything is sent."""

from __future__ import annotations

import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fastvlm_ops.operators import backup
from tests.airflow_home import ROOT
from tests.airflow_kit import Kit, set_connection
from tests.unit.operators.support import Context, create, failure, prepare


def is_untouched(connection: dict[str, Any], s3_client: Any) -> bool:
    return "Contents" not in s3_client.list_objects_v2(Bucket=connection["extra"]["bucket"])


def remove_database(kit: Kit) -> None:
    (kit.folder / "data" / "application.db").unlink()


def empty_uploads(kit: Kit) -> None:
    (kit.folder / "uploads" / "photo.jpg").unlink()


def put_a_file_for_a_folder(kit: Kit) -> None:
    empty_uploads(kit)
    (kit.folder / "uploads").rmdir()
    (kit.folder / "uploads").write_text("not a folder")


def put_text_for_a_database(kit: Kit) -> None:
    (kit.folder / "data" / "application.db").write_text("not a database")


@pytest.mark.parametrize(
    ("spoil", "key", "message"),
    [
        (remove_database, "components[2].path (application_data)", "data/application.db does not exist"),
        (empty_uploads, "components[3].path (uploads)", "uploads is empty; an empty backup is refused"),
        (put_a_file_for_a_folder, "components[3].path (uploads)", "uploads is not a folder"),
        (put_text_for_a_database, "components[2].path (application_data)", "is not an SQLite database"),
    ],
)
def test_a_bad_source_is_refused_before_anything_is_sent(
    spoil: Callable[[Kit], None],
    key: str,
    message: str,
    kit: Kit,
    connection: dict[str, Any],
    s3_client: Any,
) -> None:
    spoil(kit)
    said = failure(prepare())
    assert said.count("\n") == 0
    assert f"include/components.yaml: {key}: {kit.folder}" in said
    assert message in said
    assert is_untouched(connection, s3_client)


def test_all_bad_sources_are_named_at_once(kit: Kit, connection: dict[str, Any]) -> None:
    remove_database(kit)
    empty_uploads(kit)
    lines = failure(prepare()).splitlines()
    assert [line.partition(": ")[2].partition(" (")[0] for line in lines] == [
        "components[2].path",
        "components[3].path",
    ]


def test_an_unreadable_source_is_named_with_the_user(kit: Kit, connection: dict[str, Any]) -> None:
    uploads = kit.folder / "uploads"
    uploads.chmod(0)
    command = [sys.executable, "-c", PREPARE]
    if os.geteuid() == 0:  # root reads everything as long as it may override permissions
        command = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search", *command]
    result = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    uploads.chmod(0o755)
    assert f"components[3].path (uploads): {uploads} cannot be read by user " in result.stdout


#: Prints why a backup cannot be prepared.
PREPARE = """
from fastvlm_ops.core.backup import SourceError
from fastvlm_ops.core.config import load_components
from fastvlm_ops import settings
from fastvlm_ops.operators.backup import PrepareRepositoryOperator
operator = PrepareRepositoryOperator(task_id="t", components=load_components(settings.include_dir()).names)
try:
    operator._check_sources(load_components(settings.include_dir()))
except SourceError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bucket": "absent-bucket"}, "bucket 'absent-bucket' does not exist at http://127.0.0.1"),
        ({"login": "wrong"}, "refuses the credentials"),
        ({"password": "wrong"}, "refuses the credentials"),
        ({"repository_passphrase": ""}, "the field 'repository_passphrase' is empty"),
    ],
)
def test_a_bad_connection_is_refused_before_data_is_sent(
    change: dict[str, str],
    message: str,
    kit: Kit,
    connection: dict[str, Any],
    s3_client: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    changed = {name: {**connection, **change}.get(name) for name in connection}
    changed["extra"] = {**connection["extra"], **{key: change[key] for key in change if key not in changed}}
    set_connection(monkeypatch, changed)
    assert message in failure(prepare())
    listing = s3_client.list_objects_v2(Bucket=connection["extra"]["bucket"])
    assert all("/probe/" in item["Key"] for item in listing.get("Contents", []))


def test_a_wrong_passphrase_is_refused(
    kit: Kit, connection: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare().execute(Context())
    extra = {**connection["extra"], "repository_passphrase": "another"}
    set_connection(monkeypatch, {**connection, "extra": extra})
    for operator in (prepare(), create("models")):
        assert "passphrase fits none" in failure(operator)


def test_an_endpoint_that_is_down_is_tried_again(
    kit: Kit, connection: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastvlm_ops.core.backup import StorageError

    extra = {**connection["extra"], "endpoint_url": "http://127.0.0.1:9"}
    set_connection(monkeypatch, {**connection, "extra": extra})
    context = Context()
    with pytest.raises(StorageError, match="did not answer") as caught:
        prepare().execute(context)
    assert context.pushed["failure"]["error"] == "StorageError"
    assert "direct cause" not in "".join(traceback.format_exception(caught.value))


def test_an_unknown_component_is_named(kit: Kit, connection: dict[str, Any]) -> None:
    prepare().execute(Context())
    context = Context()
    said = failure(create("modles"), context)
    assert "include/components.yaml: components: has no component named 'modles'; it has models" in said
    assert context.pushed["failure"]["component"] == "modles"


def test_a_relative_path_needs_kit_dir(
    kit: Kit, connection: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AIRFLOW__FASTVLM_OPS__KIT_DIR")
    assert "components[0].path: 'models' is relative, but [fastvlm_ops] kit_dir" in failure(prepare())


def test_a_backup_without_a_repository_is_refused(kit: Kit, connection: dict[str, Any]) -> None:
    assert "there is no backup repository at s3://" in failure(create("models"))


def test_results_carry_the_fingerprint_of_the_definitions(kit: Kit, connection: dict[str, Any]) -> None:
    from fastvlm_ops.core.config import include_hash

    fingerprint = include_hash(ROOT / "include")
    assert prepare().execute(Context())["include_hash"] == fingerprint
    assert create("models").execute(Context())["include_hash"] == fingerprint


def test_a_second_attempt_of_a_run_reuses_the_first(kit: Kit, connection: dict[str, Any]) -> None:
    prepare().execute(Context())
    first = create("models").execute(Context())
    again = create("models").execute(Context())
    assert (first["reused"], again["reused"]) == (False, True)
    assert again["snapshot_id"] == first["snapshot_id"]
    assert create("models").execute(Context("another run"))["snapshot_id"] != first["snapshot_id"]


def test_progress_goes_to_the_log(
    kit: Kit, connection: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare().execute(Context())
    operator, lines = create("models"), []
    log = SimpleNamespace(info=lambda text, *values: lines.append(text % values), warning=print)
    monkeypatch.setattr(type(operator), "log", log)
    operator.execute(Context())
    assert any(line.startswith("backup models: 2 files, ") for line in lines)


@pytest.mark.parametrize(
    ("steps", "results", "message"),
    [
        (None, [], "nothing could be planned"),
        ([], [], "nothing could be planned"),
        ([{"component": "a"}, {"component": "b"}], [{"component": "a"}], "not restored: b; see"),
        ([{"component": "a"}], [None], "not restored: a; see"),
    ],
)
def test_the_verdict_is_red_unless_all_is_there(steps: Any, results: Any, message: str) -> None:
    verdict = backup.ConfirmRestoreOperator(task_id="t", steps=steps, results=results, dry_run=False)
    assert message in failure(verdict)


@pytest.mark.parametrize("name", ["", ".", "..", "../elsewhere", "/etc", "a/../..", "link"])
def test_restores_are_confined(name: str, tmp_path: Path) -> None:
    from fastvlm_ops.core.backup import RestoreTargetError

    restores = tmp_path / "restores"
    restores.mkdir()
    (restores / "link").symlink_to(tmp_path)
    with pytest.raises(RestoreTargetError, match="is not a folder below"):
        backup.restore_target(restores, name)


def test_restores_may_go_to_a_new_or_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert backup.restore_target(tmp_path, "empty") == tmp_path / "empty"
    assert backup.restore_target(tmp_path, "new") == tmp_path / "new"
    assert not (tmp_path / "new").exists()


def test_restores_may_not_go_to_a_file(tmp_path: Path) -> None:
    from fastvlm_ops.core.backup import RestoreTargetError

    (tmp_path / "file").touch()
    with pytest.raises(RestoreTargetError, match="is not a folder"):
        backup.restore_target(tmp_path, "file")
