"""Verification before publishing, and the backup of changes alone."""

from __future__ import annotations

import shutil
from datetime import timedelta
from typing import Any

import pytest

from fastvlm_ops.core.backup import FolderSource, list_sets, select_set
from fastvlm_ops.core.backup.compare import quick_signature
from fastvlm_ops.hooks.s3 import BackupRepositoryHook
from fastvlm_ops.operators import backup
from fastvlm_ops.triggers.watching import SIGNATURE_KEY
from tests.airflow_kit import Kit
from tests.unit.operators.support import MOMENT, Context, create, failure, prepare

NAME = "configuration"


def verify(*components: str) -> backup.VerifyBackupOperator:
    return backup.VerifyBackupOperator(task_id="verify", components=list(components))


def publish(*components: str, **arguments: Any) -> backup.PublishBackupOperator:
    return backup.PublishBackupOperator(
        task_id="publish", components=list(components), kind="full", **arguments
    )


def changes() -> backup.BackUpChangesOperator:
    return backup.BackUpChangesOperator(task_id="changes", component=NAME)


def delete(s3_client: Any, connection: dict[str, Any], prefix: str) -> list[str]:
    """Delete the repository's objects below a prefix; returns their names."""
    bucket, root = connection["extra"]["bucket"], f"{connection['extra']['prefix']}/"
    found = s3_client.list_objects_v2(Bucket=bucket, Prefix=root + prefix)["Contents"]
    for item in found:
        s3_client.delete_object(Bucket=bucket, Key=item["Key"])
    return [item["Key"].removeprefix(root) for item in found]


@pytest.fixture
def taken(kit: Kit, connection: dict[str, Any]) -> None:
    """Snapshots of two components, of one run, not published."""
    prepare().execute(Context())
    for component in ("models", NAME):
        create(component).execute(Context())


def test_what_is_verified_is_published(taken: None) -> None:
    verification = verify("models", NAME).execute(Context())
    assert verification["ok"]
    assert len(verification["verified_snapshots"]) == len(verification["sampled"]) == 2
    done = publish("models", NAME, must_be_verified=True, verification=verification).execute(Context())
    assert [member["snapshot_id"] for member in done["snapshots"]] == verification["verified_snapshots"]


def test_damage_is_named_and_keeps_it_from_being_published(
    taken: None, s3_client: Any, connection: dict[str, Any]
) -> None:
    (*_, pack) = delete(s3_client, connection, "packs/")
    context = Context()
    said = failure(verify("models", NAME), context)
    assert pack in said
    assert "snapshot configuration-" in said
    assert context.pushed["verification"]["ok"] is False
    said = failure(publish("models", NAME, must_be_verified=True, verification=None))
    assert said.startswith("not verified: configuration-")
    assert "nothing is published" in said
    assert list_sets(BackupRepositoryHook().open_repository()) == []


def test_a_snapshot_that_was_made_after_the_verification_is_not_published(taken: None) -> None:
    verification = verify("models").execute(Context())
    said = failure(publish("models", NAME, must_be_verified=True, verification=verification))
    assert said.startswith("not verified: configuration-")
    assert "models-" not in said


def test_that_a_component_is_missing_matters_more(taken: None) -> None:
    said = failure(publish("models", "uploads", must_be_verified=True))
    assert said.startswith("no snapshot of uploads in run dag/run")


def test_there_must_be_something_to_verify(kit: Kit, connection: dict[str, Any]) -> None:
    prepare().execute(Context())
    assert "nothing to verify" in failure(verify("models"))


def test_a_change_is_published_and_recorded_once(kit: Kit, connection: dict[str, Any]) -> None:
    folder = kit.folder / NAME
    first, again, changed = Context("1"), Context("2"), Context("3", MOMENT + timedelta(hours=1))
    published = changes().execute(first)
    assert (published["outcome"], published["kind"]) == ("published", "configuration")
    assert first.stored == {SIGNATURE_KEY: quick_signature(FolderSource(folder))}

    (folder / "service.yaml").touch()
    found = changes().execute(again)
    assert (found["outcome"], found["set_id"]) == ("unchanged", published["set_id"])
    assert again.stored == {SIGNATURE_KEY: quick_signature(FolderSource(folder))}
    assert again.stored != first.stored

    (folder / "service.yaml").write_text("port: 9000\n")
    newest = changes().execute(changed)
    assert newest["outcome"] == "published"
    repository = BackupRepositoryHook().open_repository()
    assert [backup.set_id for backup in list_sets(repository)] == [published["set_id"], newest["set_id"]]
    assert select_set(repository, "latest-configuration").set_id == newest["set_id"]
    with pytest.raises(Exception, match="there is no backup 'latest'"):
        select_set(repository, "latest")


def test_what_a_full_backup_has_published_is_no_change(taken: None) -> None:
    full = publish("models", NAME).execute(Context())
    found = changes().execute(Context("other"))
    assert (found["outcome"], found["set_id"]) == ("unchanged", full["set_id"])


def test_a_second_attempt_publishes_what_the_first_took_and_leaves_later_changes(
    kit: Kit, connection: dict[str, Any]
) -> None:
    prepare().execute(Context())
    first = create(NAME).execute(Context())  # as an attempt does that is killed before it publishes
    (kit.folder / NAME / "service.yaml").write_text("port: 9000\n")
    context = Context()
    published = changes().execute(context)
    assert [member["snapshot_id"] for member in published["snapshots"]] == [first["snapshot_id"]]
    assert context.stored == {}, "the watcher has to start another run for what came later"
    assert changes().execute(Context("next"))["outcome"] == "published"


def test_a_damaged_backup_is_replaced(kit: Kit, connection: dict[str, Any], s3_client: Any) -> None:
    first = changes().execute(Context("1"))
    delete(s3_client, connection, "snapshots/")
    second = changes().execute(Context("2"))
    assert second["outcome"] == "published"
    assert second["set_id"] != first["set_id"]
    assert changes().execute(Context("3"))["outcome"] == "unchanged"


def test_a_folder_that_is_gone_is_a_failure(kit: Kit, connection: dict[str, Any]) -> None:
    shutil.rmtree(kit.folder / NAME)
    context = Context()
    assert failure(changes(), context) == f"{kit.folder / NAME} does not exist"
    assert context.pushed["failure"]["component"] == NAME


def test_it_works_where_nothing_can_be_recorded(kit: Kit, connection: dict[str, Any]) -> None:
    context = Context()
    del context["asset_state_store"]
    assert changes().execute(context)["outcome"] == "published"


def test_its_only_inlet_is_the_asset_and_it_has_no_outlet() -> None:
    # An outlet would be an event of the asset, and start the next run.
    operator = changes()
    assert [inlet.name for inlet in operator.inlets] == ["fastvlm_ops/watched_component"]
    assert operator.outlets == []
