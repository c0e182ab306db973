"""The package's names, and what comes with them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from fastvlm_ops.core import capacity


def test_all_names_are_there() -> None:
    for name in capacity.__all__:
        assert getattr(capacity, name) is not None
    assert set(capacity.__all__) == set(capacity._MODULES)
    with pytest.raises(AttributeError, match="no_such_name"):
        capacity.no_such_name  # noqa: B018


def test_who_reads_a_forecast_does_not_wait_for_what_makes_one() -> None:
    code = (
        "import sys, fastvlm_ops.core.capacity.publishing, fastvlm_ops.core.capacity.partitions;"
        "print({'pandas', 'scipy', 'statsmodels'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
