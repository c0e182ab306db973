"""Core ML benchmarks for the pages to show: nights of runs that were made up, with every verdict there is."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from sqlalchemy import insert

from fastvlm_ops.core.coreml.devices.interface import FailureCode, HardwareClass
from fastvlm_ops.core.coreml.epochs import Epoch
from fastvlm_ops.core.coreml.verdicts import Metric, Verdict
from fastvlm_ops.core.store import open_store
from fastvlm_ops.core.store.tables.coreml import baselines, runs, sessions, verdicts
from fastvlm_ops.ui.coreml.standing import Subject

PHONE, LAPTOP, REFERENCE = "iphone-15-pro", "macbook-m3", "linux-reference"
ENCODER, DECODER, NEW = "VisionEncoder", "TextDecoder", "Projector"
NIGHTS, NEW_SYSTEM, NEW_VERSION = 90, 40, 84
HOSTILE = "<script>alert('x')</script>\"\\\n\u202e/é"
TODAY = datetime.now(UTC).replace(hour=1, minute=30, second=0, microsecond=0)
DEFINITIONS = f"""\
version: 1
models:
  - name: {ENCODER}
    path: models/{ENCODER}-v{{version}}.mlpackage
    compute_units: [CPU_AND_NE, ALL]
  - name: {DECODER}
    path: models/{DECODER}-v{{version}}.mlpackage
    compute_units: [CPU_AND_NE, ALL]
  - name: {NEW}
    path: models/{NEW}-v{{version}}.mlpackage
    compute_units: [ALL]
devices:
  - name: {PHONE}
    backend: connected-device
    connection: fastvlm_apple_iphone15pro
  - name: {LAPTOP}
    backend: local-mac
    compute_units: [CPU_AND_NE]
  - name: {REFERENCE}
    backend: linux-reference
    compute_units: [ALL]
"""
CLASSES = {
    PHONE: (HardwareClass.IPHONE, "iPhone16,1", "18.1", "22B83"),
    LAPTOP: (HardwareClass.MAC, "Mac15,3", "15.1", "24B83"),
    REFERENCE: (HardwareClass.LINUX_REFERENCE, "AMD EPYC 7B13", "6.8", "6.8.0-45-a3f1"),
}


@dataclass(frozen=True)
class Story:
    """What became of a subject.

    :param latency_ms: at first
    :param noise: of a session, as a share
    :param step: of the newest version, as a share
    :param said: of the newest run by metric, where that is not OK: verdict, reason, change, details
    :param new_system_at: night of the phone's new system; None for none
    :param failure: of the newest run
    :param last: the night of the newest run, counted back from today
    """

    subject: Subject
    latency_ms: float
    noise: float = 0.012
    step: float = 0.0
    shares: tuple[float, float, float] = (0.97, 0.0, 0.03)
    shares_now: tuple[float, float, float] | None = None
    psnr_db: float | None = 81.8
    psnr_now: float | None = None
    said: Mapping[Metric, tuple[Verdict, str, float | None, Mapping[str, Any]]] = field(default_factory=dict)
    new_system_at: int | None = None
    failure: tuple[FailureCode, str] | None = None
    last: int = 0


REGRESSED = Subject(ENCODER, PHONE, "CPU_AND_NE")
STEADY = Subject(ENCODER, PHONE, "ALL")
IMPROVED = Subject(ENCODER, LAPTOP, "CPU_AND_NE")
WRONG = Subject(ENCODER, REFERENCE, "ALL")
UNSTABLE = Subject(DECODER, PHONE, "CPU_AND_NE")
NEW_EPOCH = Subject(DECODER, PHONE, "ALL")
MISSING = Subject(DECODER, LAPTOP, "CPU_AND_NE")
FAILED = Subject(DECODER, REFERENCE, "ALL")
UNDECLARED = Subject("LegacyTower", PHONE, "CPU_ONLY")
_MOVED = [
    {
        "operation": "stage3_mixer_dwconv_7",
        "kind": "ios17.conv",
        "before": "ane",
        "after": "cpu",
        "cost_share": 0.11,
    },
    {
        "operation": "<b>gather</b>\u202e_1",
        "kind": "ios17.gather",
        "before": "ane",
        "after": "gpu",
        "cost_share": 0.02,
    },
]
STORIES = (
    Story(
        REGRESSED,
        12.4,
        step=0.062,
        shares_now=(0.84, 0.02, 0.14),
        new_system_at=NEW_SYSTEM,
        said={
            Metric.LATENCY_P50: (
                *(Verdict.REGRESSION, "6.2 % slower than the accepted version 1.13 in 12 of 12 sessions"),
                *(0.062, {"low": 0.055, "high": 0.069}),
            ),
            Metric.PLACEMENT: (
                *(Verdict.REGRESSION, "2 operations with 13 % of the cost left the Neural Engine"),
                *(None, {"moved": _MOVED}),
            ),
        },
    ),
    Story(STEADY, 11.9, new_system_at=NEW_SYSTEM),
    Story(
        IMPROVED,
        5.1,
        step=-0.08,
        shares=(0.9, 0.08, 0.02),
        said={
            Metric.LATENCY_P50: (
                Verdict.IMPROVEMENT,
                "8.0 % faster than the accepted version 1.13",
                -0.08,
                {"low": -0.086, "high": -0.073},
            )
        },
    ),
    Story(
        WRONG,
        310.0,
        noise=0.05,
        shares=(0.0, 0.0, 1.0),
        psnr_now=30.4,
        said={
            Metric.PARITY: (
                Verdict.REGRESSION,
                "PSNR fell from 81.8 to 30.4 dB, below the 35 dB that are wanted",
                None,
                {},
            )
        },
    ),
    Story(
        UNSTABLE,
        21.0,
        noise=0.1,
        said={
            Metric.LATENCY_P50: (
                Verdict.UNSTABLE,
                "5 of 12 sessions were far from the others: the device was throttled",
                0.09,
                {"low": -0.02, "high": 0.21},
            )
        },
    ),
    Story(
        NEW_EPOCH,
        20.2,
        new_system_at=NIGHTS - 1,
        said={
            Metric.LATENCY_P50: (Verdict.INSUFFICIENT, "new epoch: OS 18.1 → 18.2", None, {}),
            Metric.SIZE: (Verdict.REGRESSION, HOSTILE, 0.12, {}),
        },
    ),
    Story(
        MISSING,
        9.3,
        shares=(0.7, 0.3, 0.0),
        failure=(FailureCode.DEVICE_MISSING, "macbook-m3 did not answer: see to its worker"),
        said={
            Metric.STATUS: (
                Verdict.MISSING,
                "device_missing: macbook-m3 did not answer: see to its worker",
                None,
                {},
            )
        },
    ),
    Story(
        FAILED,
        450.0,
        noise=0.05,
        shares=(0.0, 0.0, 1.0),
        failure=(FailureCode.UNSUPPORTED_MODEL, "the reference lacks ios18.slice_update"),
        said={
            Metric.STATUS: (
                Verdict.FAILED,
                "unsupported_model: the reference lacks ios18.slice_update",
                None,
                {},
            )
        },
    ),
    Story(UNDECLARED, 33.0, shares=(0.0, 0.0, 1.0), psnr_db=None, last=9),
)


def night_key(night: int) -> str:
    """The key of the run of a night."""
    return f"coreml_benchmark/scheduled__{_at(night).isoformat()}"


def _at(night: int) -> datetime:
    return TODAY - timedelta(days=NIGHTS - 1 - night)


def add_definitions(include_dir: Path) -> None:
    """Declare the models and devices, one of which is never measured."""
    (include_dir / "coreml.yaml").write_text(DEFINITIONS)


def add_runs(
    database: Path, stories: Sequence[Story] = STORIES, nights: Sequence[int] = range(NIGHTS)
) -> None:
    """Add the nights of all subjects."""
    generator = random.Random(11)
    with open_store(f"sqlite:///{database}", migrate_first=True) as store:
        for story in stories:
            rows: dict[Any, list[dict[str, Any]]] = {runs: [], sessions: [], verdicts: [], baselines: []}
            for night in nights:
                if night <= nights[-1] - story.last:
                    for table, row in _night(story, night, night == nights[-1] - story.last, generator):
                        rows[table].append(row)
            with store.write() as connection:
                for table, some in rows.items():
                    connection.execute(insert(table), some)


def _night(
    story: Story, night: int, newest: bool, generator: random.Random
) -> Iterator[tuple[Any, dict[str, Any]]]:
    failure = story.failure if newest else None
    key = {"run_key": night_key(night), **story.subject._asdict()}
    version = "1.14" if night >= NEW_VERSION else f"1.{max(9 + night // 20, 0)}"
    level = story.latency_ms * (1 + (story.step if night >= NEW_VERSION else 0)) * generator.gauss(1, 0.004)
    values = [] if failure else [level * generator.lognormvariate(0, story.noise) for _ in range(12)]
    if story.subject == UNSTABLE and newest:
        values = [value * (1.3 if n % 5 < 2 else 1.0) for n, value in enumerate(values)]
    row = _run(story, night, values, failure)
    yield (
        runs,
        {**key, **row, "version": version, "digest": f"{version}-{story.subject.model}".ljust(64, "0")},
    )
    for index, value in enumerate(values):
        yield sessions, {**key, "session_index": index, **_session(night, index, value)}
    changed = night >= NEW_VERSION and story.said and not story.failure
    said = story.said if newest or (changed and story.subject == REGRESSED) else {}
    for metric in [Metric.STATUS] if failure else list(Metric):
        yield verdicts, {**key, **_verdict(metric, night, row, said), "gate": _counts(story, metric)}
    if not said and not failure:
        accepted = {
            "accepted_at": _at(night) + timedelta(hours=1),
            "accepted_by": "green",
            "version": version,
        }
        yield baselines, {**key, **accepted, "digest": row["epoch"].ljust(64, "0"), "epoch": row["epoch"]}


def _run(
    story: Story, night: int, values: Sequence[float], failure: tuple[FailureCode, str] | None
) -> dict[str, Any]:
    kind, device_model, system, build = CLASSES[story.subject.device]
    if story.new_system_at is not None and night >= story.new_system_at:
        system, build = "18.2", "22C152"
    found = failure is None or failure[0] is not FailureCode.DEVICE_MISSING
    toolchain = {"coremltools": "9.0", "xcode": "16.1"}
    about = {"os_version": system, "os_build": build, "identifier_hash": "5f0c1d2e3b4a5968"}
    epoch = Epoch.of(
        {"hardware_class": kind, "model": device_model, **about}, toolchain, story.subject.compute_unit
    )
    is_new = night >= NEW_VERSION
    shares = (story.shares_now if is_new else None) or story.shares
    psnr = (story.psnr_now if is_new else None) or story.psnr_db
    return {
        "measured_at": _at(night),
        "status": "failed" if failure else "complete",
        "failure_code": str(failure[0]) if failure else None,
        "failure_detail": failure[1] if failure else None,
        "hardware_class": str(kind) if found else None,
        "device_model": device_model if found else None,
        **(about if found else dict.fromkeys(about)),
        "epoch": epoch.key if found else "",
        "toolchain": toolchain if found else {},
        "sessions": len(values),
        "sessions_failed": 0,
        **_times(values),
        "size_bytes": 3_730_000 + 1_000 * night,
        "golden_id": None if psnr is None else "golden-1",
        "psnr_db": psnr if values else None,
        "cosine": 0.99998 if psnr and values else None,
        "max_abs_difference": 0.0021 if psnr and values else None,
        "argmax_agree": 1.0 if psnr and values else None,
        "nan_count": 0 if psnr and values else None,
        "inf_count": 0 if psnr and values else None,
        **{
            f"cost_share_{unit}": shares[n] if values else None
            for n, unit in enumerate(("ane", "gpu", "cpu"))
        },
        "cost_share_unknown": 0.0 if values else None,
        "artefact_uri": None,
    }


def _times(values: Sequence[float]) -> dict[str, Any]:
    names = ("latency_p50_ms", "latency_p90_ms", "latency_p99_ms", "latency_min_ms", "load_cold_ms")
    if not values:
        return dict.fromkeys((*names, "load_warm_ms", "peak_memory_bytes"))
    middle = median(values)
    times = (middle, quantiles(values, n=10)[-1], middle * 1.3, min(values), middle * 40)
    return {
        **dict(zip(names, times, strict=True)),
        "load_warm_ms": middle * 6,
        "peak_memory_bytes": 214_000_000,
    }


def _session(night: int, index: int, value: float) -> dict[str, Any]:
    return {
        "measured_at": _at(night) + timedelta(seconds=90 * index),
        "failure_code": None,
        "failure_detail": None,
        "predictions": 20,
        **{"p50_ms": value, "p90_ms": value * 1.04, "p99_ms": value * 1.3, "min_ms": value * 0.97},
        **{"load_cold_ms": value * 40, "load_warm_ms": value * 6, "peak_memory_bytes": 214_000_000},
        **{"thermal_start": "nominal", "thermal_end": "nominal", "low_power": False},
        **{"battery_percent": 87.0, "charging": True, "cooldown_seconds": 30.0},
    }


def _counts(story: Story, metric: Metric) -> bool:
    is_time = metric in (Metric.LATENCY_P50, Metric.LATENCY_P90, Metric.LATENCY_TREND, Metric.LOAD_COLD)
    return metric is not Metric.FLOPS and not (is_time and story.subject.device == REFERENCE)


def _verdict(
    metric: Metric,
    night: int,
    row: Mapping[str, Any],
    said: Mapping[Metric, tuple[Verdict, str, float | None, Mapping[str, Any]]],
) -> dict[str, Any]:
    values = {
        Metric.LATENCY_P50: row["latency_p50_ms"],
        Metric.SIZE: row["size_bytes"],
        Metric.PARITY: row["psnr_db"],
        Metric.PEAK_MEMORY: row["peak_memory_bytes"],
    }
    of_latency = metric in (Metric.LATENCY_P50, Metric.LATENCY_P90)
    change, details = (0.002, {"low": -0.004, "high": 0.008}) if of_latency else (None, {})
    verdict, reason, change, details = said.get(
        metric, (Verdict.OK, "no change that matters", change, details)
    )
    value = values.get(metric)
    before = None if value is None else value / (1 + (change or 0.0))
    return {
        "metric": str(metric),
        "judged_at": _at(night) + timedelta(minutes=50),
        "verdict": str(verdict),
        "baseline_value": before,
        "value": value,
        "change": change,
        "p_value": 1e-6 if of_latency and verdict != Verdict.OK else None,
        "confidence": 0.999999 if of_latency and verdict != Verdict.OK else None,
        "reason": reason,
        "details": dict(details),
    }
