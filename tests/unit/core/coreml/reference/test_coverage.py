"""What is said to be covered is covered, and the documents say so."""

from __future__ import annotations

from fastvlm_ops.core.coreml.reference.coverage import FASTVLM, coverage
from fastvlm_ops.core.coreml.reference.registry import translators
from tests.unit.core.coreml.reference.coverage_page import PAGE, page
from tests.unit.core.coreml.reference.test_operations import CASES

IN_TESTS_OF_THEIR_OWN = {"read_state", "coreml_update_state"}  # test_states.py


def test_every_operation_that_is_translated_is_compared_with_numpy() -> None:
    assert {case.operation for case in CASES} | IN_TESTS_OF_THEIR_OWN == set(translators())


def test_all_operations_of_fastvlm_are_covered() -> None:
    covered = {one.name: one for one in coverage()}

    assert len(FASTVLM) == len(set(FASTVLM))
    assert [name for name in FASTVLM if not covered[name].runs] == []


def test_what_is_not_covered_is_told() -> None:
    found = {one.name: one for one in coverage()}

    assert not found["random_normal"].runs
    assert found["conv"].since == "iOS15"
    assert found["conv"].newest == "iOS17"
    assert found["scaled_dot_product_attention"].since == "iOS18"
    assert found["constexpr_lut_to_dense"].runs


def test_the_page_has_the_table_as_it_is() -> None:
    command = ".venv/bin/python -m tests.unit.core.coreml.reference.coverage_page"
    assert PAGE.read_text() == page(), f"{command} renews it"
