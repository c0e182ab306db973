"""The recording rules for large fleets: read with them, every hour is what it is without them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from fastvlm_ops.core.config import load_capacity
from fastvlm_ops.core.config.capacity import RESOURCES, Resources
from fastvlm_ops.local.metrics_history import write_history
from fastvlm_ops.local.prometheus import Prometheus, program
from tests.conftest import ROOT
from tests.integration.prometheus.conftest import CONFIG, USED, MakeHook

pytestmark = pytest.mark.integration

RULES = CONFIG.parent / "capacity.rules.yaml"
RUNBOOK = ROOT / "docs" / "runbooks" / "capacity_forecast.md"
DAYS = 2


@dataclass(frozen=True)
class Recorded:
    """A server that has both the samples and what the rules make of them."""

    url: str
    start: datetime
    end: datetime


@pytest.fixture(scope="module")
def recorded(programs: None, config: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    """Recorded as the runbook says, since it is past."""
    folder = tmp_path_factory.mktemp("recorded")
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    end = midnight - timedelta(days=1)
    start = end - timedelta(days=DAYS)
    write_history(folder / "history.txt", end=end, days=DAYS + 1, services=USED)
    server = Prometheus(folder / "server", config=config, die_with_parent=True)
    server.load(folder / "history.txt")
    arguments = ["tsdb", "create-blocks-from", "--max-block-duration=162h", "rules"]
    arguments += [f"--start={start:%Y-%m-%dT%H:%M:%SZ}", f"--end={end:%Y-%m-%dT%H:%M:%SZ}"]
    with server:
        done = subprocess.run(
            [program("promtool"), *arguments, f"--url={server.url}", f"--output-dir={server.data}", RULES],
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    with server:
        yield Recorded(server.url, start, end)


def documented() -> Resources:
    """What the runbook puts into capacity.yaml."""
    _, _, text = RUNBOOK.read_text().partition("## Large fleets")
    block = text.split("```yaml\n")[1].split("```")[0]
    return Resources.model_validate(yaml.safe_load(block)["resources"])


def test_the_rules_are_right(programs: None) -> None:
    done = subprocess.run(
        [program("promtool"), "check", "rules", "--lint-fatal", RULES],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 rules found" in done.stdout
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    metrics = [getattr(documented(), resource) for resource in RESOURCES]
    read = {query for metric in metrics for query in (metric.average, metric.peak)}
    assert read == {f"last_over_time({rule['record']}[1h])" for rule in group["rules"]}


@pytest.mark.parametrize("kind", ["average", "peak"])
@pytest.mark.parametrize("resource", RESOURCES)
def test_both_ways_give_the_same_hours(
    recorded: Recorded, make_hook: MakeHook, resource: str, kind: str
) -> None:
    hook = make_hook(recorded.url)
    direct = getattr(getattr(load_capacity(ROOT / "include").resources, resource), kind)
    indirect = getattr(getattr(documented(), resource), kind)
    expected = hook.hourly(direct, recorded.start, recorded.end)
    found = hook.hourly(indirect, recorded.start, recorded.end)
    assert expected.notna().to_numpy().sum() >= DAYS * 24
    pd.testing.assert_frame_equal(found, expected, rtol=1e-9)
    assert np.isfinite(found["vlm-api"]).all()


def test_nothing_of_the_next_hour_is_in_it(recorded: Recorded, make_hook: MakeHook) -> None:
    """Of an hour there are five samples, the newest from its last minute."""
    hook = make_hook(recorded.url)
    hour = "service:fastvlm_requests:rate1h"
    counts = hook.hourly(f"count_over_time({hour}[1h])", recorded.start, recorded.end)["vlm-api"]
    assert (counts == 5).all()
    newest = hook.hourly(f"max_over_time(timestamp({hour})[1h:1s])", recorded.start, recorded.end)["vlm-api"]
    before = (newest.index + pd.Timedelta(hours=1)).as_unit("s").asi8 - newest.to_numpy()
    assert ((before > 0) & (before <= 60)).all()
