"""include/components.yaml: what it accepts, and what it says to the person who got it wrong."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import pytest

from fastvlm_ops.core.config import DefinitionError, load_components, load_watched_components

GOOD = """
version: 1
components:
  - name: models
    kind: files
    path: models
    exclude: ["*.tmp"]
  - name: application_data
    kind: sqlite
    path: /srv/data/application.db
"""


def load(folder: Path, text: str):
    (folder / "components.yaml").write_text(text, encoding="utf-8")
    return load_components(folder)


WATCHED = "{{name: {}, kind: files, path: x, watch: true}}"


def one(component: str) -> str:
    return f"version: 1\ncomponents:\n  - {component}\n"


def test_reads_files_and_sqlite(tmp_path: Path) -> None:
    components = load(tmp_path, GOOD)
    assert components.names == ["models", "application_data"]
    assert components.component("models").exclude == ("*.tmp",)
    assert components.path_of("models", Path("/kit")) == Path("/kit/models")
    assert components.path_of("application_data", None) == Path("/srv/data/application.db")


def test_how_old_the_newest_backup_may_be(tmp_path: Path) -> None:
    components = load(tmp_path, GOOD + "    newest_backup_max_age_hours: 1.5\n")
    assert components.objectives == {
        "models": timedelta(hours=26),
        "application_data": timedelta(hours=1, minutes=30),
    }


@pytest.mark.parametrize("value", ["0", "-1", "9000", ".nan", ".inf", "one day", "true", "null"])
def test_an_age_that_could_never_be_missed_or_kept_is_refused(value: str, tmp_path: Path) -> None:
    component = one(f"{{name: a, kind: files, path: x, newest_backup_max_age_hours: {value}}}")
    with pytest.raises(DefinitionError, match=r"components\[0\].newest_backup_max_age_hours: "):
        load(tmp_path, component)


def test_the_shipped_file_is_good() -> None:
    include = Path(__file__).parents[4] / "include"
    components = load_components(include)
    assert components.names == ["models", "configuration", "application_data", "uploads"]
    assert components.watched == "configuration"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("", "is empty", id="empty file"),
        pytest.param("- 1\n", "line 1: must be a mapping with the keys version, components", id="no mapping"),
        pytest.param("version: 1\n", "line 1, components: is missing; expected: at least one", id="no list"),
        pytest.param("version: 1\ncomponents: []\n", "line 2, components: the list is empty", id="empty"),
        pytest.param("version: 1\ncomponents:\n", "components: None is not a list", id="null list"),
        pytest.param("version: 2\ncomponents: []\n", "line 1, version: 2 is not allowed; expected 1", id="v"),
        pytest.param("version: 1\nversion: 1\n", "line 2, version: stands twice", id="key twice"),
        pytest.param("a: [1\n", "line 2: is not valid YAML: expected ',' or ']'", id="YAML syntax"),
        pytest.param("a: &a [*a]\n", "line 1, a: is not a known key", id="alias to itself"),
        pytest.param("a: !!python/name:os.system\n", "line 1: is not valid YAML", id="YAML tag"),
        pytest.param("a: 2026-02-31\n", "is not valid YAML: day is out of range", id="YAML date"),
        pytest.param(
            one("{name: a, kind: files, pth: x}"),
            "line 3, components[0].pth: is not a known key; known here: name, description,"
            " newest_backup_max_age_hours, path, kind, exclude, on_change, watch. Did you mean 'path'?",
            id="unknown key",
        ),
        pytest.param(
            one("{name: a, kind: files}"), "line 3, components[0].path: is missing; expected: ", id="no path"
        ),
        pytest.param(
            one("{name: a, path: x}"),
            "line 3, components[0].kind: is missing; expected one of airflow_database,"
            " airflow_objects, files, postgresql, sqlite",
            id="no kind",
        ),
        pytest.param(
            one("{name: a, kind: ftp, path: x}"),
            "components[0].kind: 'ftp' is not known; expected one of 'files', 'sqlite',"
            " 'postgresql', 'airflow_database', 'airflow_objects'",
            id="unknown kind",
        ),
        pytest.param(
            one("{name: a, kind: sqlite, path: x.db, exclude: [b]}"),
            "components[0].exclude: is not a known key",
            id="exclude of sqlite",
        ),
        pytest.param(
            one("{name: Models, kind: files, path: x}"),
            "components[0].name: 'Models' cannot be a name; expected a lower-case letter",
            id="bad name",
        ),
        pytest.param(one("{name: 'a\n', kind: files, path: x}"), "cannot be a name", id="name with line end"),
        pytest.param(one(f"{{name: {'a' * 41}, kind: files, path: x}}"), "at most 39", id="long name"),
        pytest.param(
            one("{name: on, kind: files, path: x}"),
            "components[0].name: True is not text; put it in quotes",
            id="YAML boolean",
        ),
        pytest.param(one("{name: a, kind: files, path: 7}"), "7 is not text; put it in quotes", id="number"),
        pytest.param(one("{name: a, kind: files, path: ' '}"), "' ' cannot be a path", id="blank path"),
        pytest.param(one("{name: a, kind: files, path: ~/x}"), "'~' is not expanded", id="home"),
        pytest.param(one("{name: a, kind: files, path: ../x}"), "'../x' leaves kit_dir", id="parent"),
        pytest.param(
            one("{name: a, kind: files, path: x, exclude: ['']}"),
            "components[0].exclude: an empty pattern excludes nothing",
            id="empty pattern",
        ),
        pytest.param(
            one("{name: a, kind: files, path: x, exclude: [a, a]}"), "'a' stands 2 times", id="pattern twice"
        ),
        pytest.param(one("7"), "components[0]: 7 is not a mapping", id="number for a component"),
        pytest.param(
            one("{name: a, kind: files, path: x}\n  - {name: a, kind: files, path: y}"),
            "components: components[0] and components[1] are both named 'a'; expected unique names",
            id="name twice",
        ),
        pytest.param(
            one(WATCHED.format("a") + "\n  - " + WATCHED.format("b")),
            "components: components[0] and components[1] have watch: true; expected at most one",
            id="two watched",
        ),
        pytest.param(
            one(WATCHED.format("a").replace("true", "1")), "watch: 1 is not true or false", id="watch"
        ),
        pytest.param(
            one("{name: a, kind: sqlite, path: x.db, watch: true}"),
            "components[0].watch: is not a known key",
            id="watch of sqlite",
        ),
        pytest.param(
            one("{name: a, kind: airflow_database, path: x.db}"),
            "components[0].path: is not a known key; known here: name, description,"
            " newest_backup_max_age_hours, connection, kind",
            id="path of a database with a connection",
        ),
        pytest.param(
            one("{name: a, kind: airflow_objects, connection: 'a b'}"),
            "components[0].connection: 'a b' cannot be the id of a connection; expected letters",
            id="connection",
        ),
        pytest.param(
            one(WATCHED.format("a")) + "retention: {keep_daly: 3}\n",
            "retention.keep_daly: is not a known key; known here: keep_last, keep_daily,",
            id="unknown retention",
        ),
        pytest.param(
            one(WATCHED.format("a")) + "retention: {keep_last: -1}\n",
            "line 4, retention.keep_last: -1 is not allowed",
            id="negative retention",
        ),
        pytest.param(
            one(WATCHED.format("a"))
            + "retention: {keep_last: 0, keep_daily: 0, keep_weekly: 0, keep_monthly: 0, keep_yearly: 0}\n",
            "line 4, retention: every key is 0, which would keep no backup at all",
            id="no retention",
        ),
    ],
)
def test_refuses_with_one_clear_message(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        load(tmp_path, text)
    message = str(caught.value)
    assert expected in message
    assert message.startswith(str(tmp_path / "components.yaml"))
    assert "pydantic" not in message


def test_airflows_own_have_a_connection_and_no_path(tmp_path: Path) -> None:
    text = one(
        "{name: a, kind: airflow_database}\n  - {name: b, kind: airflow_objects, connection: other_db}"
    )
    components = load(tmp_path, text)
    assert [components.component(name).connection for name in "ab"] == ["fastvlm_airflow_db", "other_db"]
    assert list(components.objectives) == ["a", "b"]
    with pytest.raises(DefinitionError, match="'a' is of kind airflow_database, which has no path"):
        components.path_of("a", Path("/kit"))


CLUSTER = "{name: a, kind: postgresql, "


def test_a_cluster_has_a_connection_and_no_path(tmp_path: Path) -> None:
    components = load(tmp_path, one(CLUSTER + "slot: s_1, checks: [SELECT 1], on_damaged_pages: warn}"))
    cluster = components.component("a")
    assert (cluster.connection, cluster.slot) == ("fastvlm_postgres", "s_1")
    assert (cluster.checks, cluster.on_damaged_pages) == (("SELECT 1",), "warn")
    assert (cluster.wal_max_lag_seconds, cluster.switch_wal_after_seconds) == (600, 300)
    with pytest.raises(DefinitionError, match="'a' is of kind postgresql, which has no path"):
        components.path_of("a", Path("/kit"))
    without = load(tmp_path, one("{name: a, kind: postgresql}")).component("a")
    assert (without.slot, without.on_damaged_pages) == (None, "fail")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("slot", "Slot"),
        ("slot", "'a b'"),
        ("slot", "''"),
        ("slot", "a" * 64),
        ("checks[0]", "' '"),
        ("connection", "'a b'"),
        ("wal_max_lag_seconds", "9"),
        ("wal_max_lag_seconds", "1.5"),
        ("switch_wal_after_seconds", "0"),
        ("on_damaged_pages", "ignore"),
        ("path", "/srv"),
    ],
)
def test_a_cluster_with_what_cannot_be_is_refused(key: str, value: str, tmp_path: Path) -> None:
    name = key.partition("[")[0]
    written = f"[{value}]" if name != key else value
    with pytest.raises(DefinitionError, match=rf"components\[0\]\.{name}"):
        load(tmp_path, one(f"{CLUSTER}{name}: {written}}}"))


def test_the_examples_in_the_shipped_file_are_good(tmp_path: Path) -> None:
    text = (Path(__file__).parents[4] / "include" / "components.yaml").read_text()
    with_examples = re.sub(r"^  # (?=- name|  \w+:)", "  ", text, flags=re.M)
    added = load(tmp_path, with_examples).names[4:]
    assert added == ["application_database", "airflow_database", "airflow_objects"]


def test_reads_what_is_watched_and_kept(tmp_path: Path) -> None:
    text = one(WATCHED.format("a") + "\n  - {name: b, kind: files, path: y}") + "retention: {keep_daily: 0}\n"
    components = load(tmp_path, text)
    assert components.watched == "a"
    assert (components.retention.keep_last, components.retention.keep_daily) == (7, 0)


def test_says_when_nothing_is_watched(tmp_path: Path) -> None:
    assert load(tmp_path, GOOD).watched is None
    with pytest.raises(DefinitionError, match=r"components: none has watch: true; set it for the component"):
        load_watched_components(tmp_path)


def test_names_all_problems_at_once(tmp_path: Path) -> None:
    text = one("{name: A, kind: files, path: x}\n  - {name: b, kind: files}")
    with pytest.raises(DefinitionError) as caught:
        load(tmp_path, text)
    assert [problem.key for problem in caught.value.problems] == ["components[0].name", "components[1].path"]
    assert "2 problems" in str(caught.value)


def test_says_when_there_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match=r"components\.yaml: does not exist"):
        load_components(tmp_path)


def test_says_when_the_file_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "components.yaml").mkdir()
    with pytest.raises(DefinitionError, match="cannot be read: Is a directory"):
        load_components(tmp_path)


def test_says_when_the_file_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "components.yaml").write_bytes(b"version: \xff")
    with pytest.raises(DefinitionError, match=r"is not UTF-8 text \(byte 9\)"):
        load_components(tmp_path)


def test_an_unknown_component_is_named_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(
        DefinitionError, match=r"has no component named 'modles'; it has models, application_data"
    ):
        load(tmp_path, GOOD).component("modles")


def test_a_relative_path_needs_kit_dir(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match=r"components\[0\]\.path: 'models' is relative, but .* kit_dir"):
        load(tmp_path, GOOD).path_of("models", None)
