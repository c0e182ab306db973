"""The package's names, and what comes with them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fastvlm_ops.core import capacity
from tests.conftest import ROOT

#: From the stored history of a shard to what is published of it.
SHARD = """
import sys
from datetime import UTC, datetime
from pathlib import Path
import numpy as np
from fastvlm_ops.core.capacity.calibrating import load_calibration
from fastvlm_ops.core.capacity.collecting import History, Service, store_history
from fastvlm_ops.core.capacity.publishing import publish_forecasts
from fastvlm_ops.core.capacity.shards import forecast_shard
from fastvlm_ops.core.config import load_capacity
from fastvlm_ops.core.config.capacity import RESOURCES
from fastvlm_ops.core.store import open_store

class Objects(dict):
    def put(self, name, data, content_type=""):
        self[name] = data
        return name
    def get(self, name, remedy):
        return self[name]
    def names(self, prefix):
        return ()
    def uri(self, name):
        return name

objects, definitions, as_of = Objects(), load_capacity(Path(sys.argv[1])), datetime(2026, 1, 1, tzinfo=UTC)
values = 50 + np.random.default_rng(1).random((1, definitions.history_days * 24))
values[0, 5:9] = np.nan
series = dict.fromkeys(RESOURCES, values)
history = History(as_of, [Service("api", 2, dict.fromkeys(RESOURCES, None))], series, series)
store_history(objects, history, "run", definitions)
run = {"run_key": "run", "as_of": as_of, "horizon_days": 2}
calibration = load_calibration(objects, None)
print(forecast_shard(objects, definitions, shard=0, calibration=calibration, **run)["statuses"])
with open_store("sqlite:///" + sys.argv[2], migrate_first=True) as store:
    print(publish_forecasts(objects, store, shards=[0], calibration=calibration, **run)["statuses"])
print({"pandas", "scipy", "statsmodels"} & set(sys.modules))
"""


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


def test_a_shard_is_forecast_and_published_without_waiting_for_pandas(tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", SHARD, str(ROOT / "include"), str(tmp_path / "operations.db")]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["{'ok': 3}", "{'ok': 3}", "set()"], done.stderr
