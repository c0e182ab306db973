"""What the log says was verified, damaged and restored, folded entry by entry."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from fastvlm_ops.core.backup.commit_log import LogState


def folded(*entries: tuple[str, dict[str, Any]]) -> LogState:
    """State after some entries, each a minute after the one before it."""
    state = LogState()
    for seq, (kind, body) in enumerate(entries, 1):
        state.fold({"type": kind, "seq": seq, "time": f"2026-01-01T00:{seq:02}:00+00:00", "body": body}, "")
    return state


def snapshot(name: str) -> tuple[str, dict[str, Any]]:
    """The entry of a snapshot."""
    return "snapshot", {"snapshot_id": name, "component": "models", "run_key": name}


def verified(
    level: str, *names: str, damaged: tuple[str, ...] = (), share: list[int] | None = None
) -> tuple[str, dict[str, Any]]:
    """The entry of a verification that covered some snapshots."""
    body = {"level": level, "share": share, "ok": not damaged, "snapshots": list(names)}
    key = f"verified/{level}{share}{names}{damaged}"
    return "verified", {**body, "damaged": list(damaged), "run_key": "dag/run", "key": key}


def restored(name: str) -> tuple[str, dict[str, Any]]:
    """The entry of a restore."""
    body = {
        "snapshot_id": name,
        "set_id": "set",
        "where": "new folder",
        "files": 3,
        "bytes": 9,
        "duration": 1,
    }
    return "restored", {**body, "run_key": "dag/run", "key": f"restored/{name}"}


def restore_tested(**found: bool) -> tuple[str, dict[str, Any]]:
    """The entry of a restore test: what it found, by snapshot."""
    about = {"files": 3, "bytes": 9, "duration": 1.5}
    snapshots = {name: {"ok": ok, **about} for name, ok in found.items()}
    body = {"set_id": "set", "ok": all(found.values()), "snapshots": snapshots, "problems": []}
    return "restore-tested", {**body, "run_key": "drill/run", "key": f"restore-tested/{found}"}


def test_a_failed_restore_test_stays_until_one_passes_and_keeps_the_date_of_the_last_that_passed() -> None:
    entries = [snapshot("a"), snapshot("b"), restore_tested(a=True, b=True), restore_tested(a=False, b=True)]
    state = folded(*entries)
    assert state.checks["a"]["restore_failed"]["seq"] == 4
    assert state.checks["a"]["restore_tested"]["seq"] == 3
    assert "restore_failed" not in state.checks["b"]
    state = folded(*entries, restored("a"), verified("full", "a"))
    assert "restore_failed" in state.checks["a"], "neither shows that it can be used"
    state = folded(*entries, restore_tested(a=True))
    assert "restore_failed" not in state.checks["a"]
    assert state.checks["a"]["restore_tested"] == {
        "seq": 5,
        "time": "2026-01-01T00:05:00+00:00",
        "run_key": "drill/run",
        "level": "test",
        "share": None,
        "files": 3,
        "bytes": 9,
        "duration": 1.5,
    }
    assert len(state.recorded) == 3


def test_a_restore_test_neither_mends_nor_verifies() -> None:
    state = folded(snapshot("a"), verified("full", "a", damaged=("a",)), restore_tested(a=True, gone=True))
    assert state.checks.keys() == {"a"}
    assert state.checks["a"].keys() == {"damaged", "restore_tested"}


def test_only_what_a_check_covered_is_verified() -> None:
    state = folded(snapshot("a"), verified("head", "a"), snapshot("b"))
    assert state.checks["a"]["verified"]["level"] == "head"
    assert state.checks["a"]["verified"]["time"] == "2026-01-01T00:02:00+00:00"
    assert "b" not in state.checks


@pytest.mark.parametrize("level", ["log", "listing"])
def test_a_check_that_reads_no_pack_verifies_nothing(level: str) -> None:
    assert folded(snapshot("a"), verified(level, "a")).checks == {}


SHARE_1, SHARE_2 = [0, 8], [1, 8]


@pytest.mark.parametrize(
    ("found", "later", "is_gone"),
    [
        (("full", None), ("full", None), True),
        (("full", None), ("share", SHARE_1), False),
        (("share", SHARE_1), ("share", SHARE_2), False),
        (("share", SHARE_1), ("share", SHARE_1), True),
        (("share", SHARE_1), ("full", None), True),
        (("head", None), ("listing", None), False),
        (("head", None), ("share", SHARE_2), True),
        (("head", None), ("members", None), True),
        (("listing", None), ("log", None), False),
        (("members", None), ("members", None), False),
        (("members", None), ("full", None), True),
    ],
)
def test_damage_stays_until_something_looks_where_it_was(
    found: tuple[str, list[int] | None], later: tuple[str, list[int] | None], is_gone: bool
) -> None:
    state = folded(
        snapshot("a"),
        snapshot("b"),
        verified(found[0], "a", "b", damaged=("a",), share=found[1]),
        verified(later[0], "a", "b", share=later[1]),
    )
    assert ("damaged" not in state.checks["a"]) is is_gone
    assert "damaged" not in state.checks.get("b", {})


def test_what_is_forgotten_takes_its_checks_along_and_gets_none() -> None:
    forget = ("forget", {"snapshots": ["a"], "sets": []})
    state = folded(snapshot("a"), verified("full", "a"), forget, restored("a"), verified("full", "a"))
    assert state.checks == {}


def test_a_checkpoint_carries_the_checks_and_an_old_one_leaves_them_unknown() -> None:
    state = folded(snapshot("a"), verified("full", "a"), restored("a"), restore_tested(a=False))
    body = json.loads(json.dumps(state.checkpoint()))
    assert folded(("checkpoint", body)).checkpoint() == state.checkpoint()
    old = {key: body[key] for key in ("snapshots", "sets", "condemned")}
    again = folded(("checkpoint", old))
    assert (again.snapshots, again.checks, again.recorded) == (state.snapshots, {}, {})


def test_keys_are_kept_for_the_newest_entries() -> None:
    entries = [verified("full", str(number)) for number in range(520)]
    state = LogState()
    for seq, (kind, body) in enumerate(entries, 1):
        state.fold({"type": kind, "seq": seq, "time": "2026-01-01T00:00:00+00:00", "body": body}, "")
    assert len(state.recorded) == 500
    assert entries[-1][1]["key"] in state.recorded
    assert entries[0][1]["key"] not in state.recorded


def test_verifications_are_kept_as_counts_the_newest_hundred() -> None:
    entries = [verified("full", "a", str(number), damaged=("a",)) for number in range(105)]
    state = folded(*entries[:59])  # of an hour, by the minute
    for seq, (kind, body) in enumerate(entries[59:], 60):
        state.fold({"type": kind, "seq": seq, "time": "2026-01-01T01:00:00+00:00", "body": body}, "")
    assert [about["seq"] for about in state.verifications] == list(range(6, 106))
    newest = state.verifications[-1]
    assert (newest["snapshots"], newest["damaged"], newest["ok"]) == (2, 1, False)
    assert newest["result"] is None, "an earlier version said nothing of it, which is unknown"
    body = json.loads(json.dumps(state.checkpoint()))
    assert folded(("checkpoint", body)).verifications == state.verifications
    del body["verifications"]
    assert folded(("checkpoint", body)).verifications == []


# -- what was condemned ---------------------------------------------------------------------------------


def condemned(*packs: str, **others: list[str]) -> tuple[str, dict[str, Any]]:
    """The entry of a collection that is about to delete."""
    return "condemn", {"packs": list(packs), "indexes": [], "manifests": [], "wal": [], **others}


def swept(seq: int, left: dict[str, str | None] | None = None, finished: tuple[int, ...] = ()) -> Any:
    """The entry of a collection that has deleted."""
    return "swept", {"condemn": seq, "left": left or {}, "finished": list(finished), "key": f"swept/{seq}"}


def test_what_was_swept_leaves_the_state_and_is_remembered_by_who_read_it() -> None:
    state = folded(condemned("p", "q", indexes=["i"], manifests=["m"], wal=["w"]), swept(1))
    assert state.condemned == []
    assert state.condemned_names("packs") == {"p", "q"}
    assert [state.condemned_names(member) for member in ("indexes", "manifests", "wal")] == [
        {"i"},
        {"m"},
        {"w"},
    ]
    checkpoint = state.checkpoint()
    state.fold({"type": "checkpoint", "seq": 3, "time": "", "body": checkpoint}, "")
    assert state.condemned_names("packs") == {"p", "q"}, "whoever has read it still knows"
    assert folded(("checkpoint", checkpoint)).condemned_names("packs") == set(), (
        "whoever begins here does not"
    )
    assert copy.deepcopy(state).condemned_names("packs") == {"p", "q"}


def test_what_is_locked_stays_until_it_was_deleted() -> None:
    date = "2026-02-01T00:00:00+00:00"
    entries = [condemned("p", "q", indexes=["i"]), swept(1, {"q": date, "i": None})]
    state = folded(*entries)
    expected = {"seq": 1, "packs": ["q"], "indexes": ["i"], "manifests": [], "wal": []}
    assert state.condemned == [{**expected, "left": {"q": date, "i": None}}]
    assert json.loads(json.dumps(state.checkpoint())) == state.checkpoint()
    again = [condemned("q", indexes=["i"]), swept(3, {"i": None}, finished=(1,))]
    assert [entry["seq"] for entry in folded(*entries, *again).condemned] == [3]
    last = [condemned(indexes=["i"]), swept(5, finished=(3,))]
    assert folded(*entries, *again, *last).condemned == []


def test_what_another_has_finished_stays_condemned_until_its_own_collector_says_so() -> None:
    """It may be asleep before a DELETE."""
    entries = [condemned("p", manifests=["m"]), condemned("p", manifests=["m"]), swept(2, finished=(1,))]
    assert folded(*entries).condemned == [{"seq": 1, "packs": ["p"], "finished": True}]
    assert folded(*entries, swept(1)).condemned == []


def test_entries_of_earlier_versions_are_understood() -> None:
    state = folded(("condemn", {"packs": ["p"], "indexes": ["i"]}), ("swept", {"condemn": 1}))
    assert (state.condemned, state.condemned_names("packs")) == ([], {"p"})
    body = {"snapshots": {}, "sets": {}, "condemned": [{"seq": 1, "packs": ["p"], "indexes": ["i"]}]}
    state = folded(("checkpoint", body), condemned("p"), swept(2, finished=(1,)))
    assert state.condemned == [{"seq": 1, "packs": ["p"], "finished": True}]
    assert state.condemned_names("manifests") == set()


def test_keys_of_what_was_pruned_are_recorded() -> None:
    forget = ("forget", {"snapshots": [], "sets": [], "key": "forget/run"})
    kind, body = condemned("p")
    state = folded(forget, (kind, {**body, "key": "condemn/run"}), swept(2))
    assert state.recorded == {"forget/run": 1, "condemn/run": 2, "swept/2": 3}


def test_a_set_of_a_forgotten_snapshot_does_not_count() -> None:
    backup_set = ("backup-set", {"set_id": "set", "snapshots": {"models": "a"}})
    forget = ("forget", {"snapshots": ["a"], "sets": []})
    assert list(folded(snapshot("a"), backup_set).sets) == ["set"]
    assert folded(snapshot("a"), backup_set, forget).sets == {}
    assert folded(snapshot("a"), forget, backup_set).sets == {}


def test_who_begins_at_a_checkpoint_remembers_what_is_swept_after_it() -> None:
    """It may have listed those packs before, and come to rely on one."""
    names = {"packs": ["packs/aa"], "indexes": ["index/x"], "manifests": [], "wal": []}
    body = folded(("condemn", names)).checkpoint()
    state = folded(("checkpoint", json.loads(json.dumps(body))), ("swept", {"condemn": 1, "left": {}}))
    assert state.condemned == []
    assert (state.condemned_names("packs"), state.condemned_names("indexes")) == ({"packs/aa"}, {"index/x"})
