"""The table of cases names tests that exist, and every case has one."""

from __future__ import annotations

import ast
import functools
import re

import pytest

from tests.conftest import ROOT

TABLE = (ROOT / "docs" / "backup-cases.md").read_text()
ROW = re.compile(r"^\| (\d+) \| .+ \| .+ \| (.+) \|$", re.MULTILINE)
TEST = re.compile(r"`([\w/]+\.py)::(\w+)`")
CASES = {int(number): TEST.findall(tests) for number, tests in ROW.findall(TABLE)}


@functools.cache
def functions_of(file: str) -> dict[str, ast.FunctionDef]:
    tree = ast.parse((ROOT / "tests" / file).read_text())
    return {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_there_are_thirty_cases_in_order() -> None:
    assert list(CASES) == list(range(1, 31))
    assert all(CASES.values())


@pytest.mark.parametrize("case", CASES)
def test_its_tests_exist_and_assert_something(case: int) -> None:
    for file, name in CASES[case]:
        assert name.startswith("test_")
        assert name in functions_of(file), f"{file} has no {name}"
        said = ast.unparse(functions_of(file)[name])
        assert re.search(r"assert|raises|check|require", said), f"{name} asserts nothing"
        assert "xfail" not in said
