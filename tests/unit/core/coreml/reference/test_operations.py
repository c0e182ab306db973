"""Every operation that is translated gives what NumPy gives for the same inputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.unit.core.coreml.reference import (
    cases_elementwise,
    cases_layers,
    cases_pictures,
    cases_shapes,
    cases_sums,
)
from tests.unit.core.coreml.reference.programs import Case, predict

FAMILIES = (cases_elementwise, cases_layers, cases_pictures, cases_shapes, cases_sums)
CASES: list[Case] = [case for family in FAMILIES for case in family.CASES]


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in CASES])
def test_an_operation_gives_what_numpy_gives(tmp_path: Path, case: Case) -> None:
    found = predict(tmp_path, case.inputs, case.build, target=case.target)

    expected = case.expect(*case.inputs.values())
    expected = list(expected) if isinstance(expected, list | tuple) else [expected]
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.shape == np.shape(other)
        np.testing.assert_allclose(one, np.asarray(other, np.float64), rtol=case.within, atol=case.within)
