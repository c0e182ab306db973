"""`make demo-coreml`: Core ML models that get worse in six ways, and a release that is kept back each time.

Everything is made and started on this machine, below one folder, and listens on loopback only. The iPhone is
a stand-in: Apple's programs are replaced; the client, coremltools and Airflow are the real ones.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from fastvlm_ops.core.config.coreml import load_coreml
from fastvlm_ops.local.airflow_api import AirflowClient, RunResult, failed_tasks
from fastvlm_ops.local.apple import AppleScript, AppleToolchain, ScriptedDevice, Timing
from fastvlm_ops.local.console import Console, table
from fastvlm_ops.local.coreml_models import NAMES, Name, Variant, build_model, example_inputs
from fastvlm_ops.local.demo import Demo, run_demo
from fastvlm_ops.local.stack import Extras, Stack
from fastvlm_ops.local.state import DemoState

NIGHTS = 2
PHONE, LINUX = "iphone-15-pro", "linux-reference"
DAG = "coreml_benchmark"
_CONNECTION = "fastvlm_apple_phone"
_ENCODER, _DECODER = NAMES
#: What is put there after the good nights: a version of each model, worse in one way each.
WORSE: tuple[dict[Name, Variant], ...] = (
    {_ENCODER: "slower", _DECODER: "drift"},
    {_ENCODER: "cpu_op", _DECODER: "overflow"},
    {_ENCODER: "uncompressed", _DECODER: "bigger"},
)
_WORDS: dict[Variant, str] = {
    "good": "as it was",
    "slower": "more blocks",
    "drift": "other weights",
    "overflow": "overflows in half precision",
    "uncompressed": "weights not compressed",
    "bigger": "wider",
    "cpu_op": "an operation for the CPU only",
}
#: Small figures, so that a run takes seconds.
_SESSIONS = {
    "count": 5,
    "warm_up": 1,
    "iterations": 3,
    "warm_loads": 0,
    "cooldown_seconds": 0,
    "max_rerun": 5,
}


class DemoCoreMLError(Exception):
    """A run did not end as it should."""


def main() -> int:
    """Start Airflow and S3 here, benchmark two Core ML models on a stand-in iPhone and on this machine."""
    own = argparse.ArgumentParser(add_help=False)
    own.add_argument("--nights", type=int, default=NIGHTS, help="good ones first; default: %(default)s")
    own.add_argument("--worse", type=int, default=len(WORSE), help="worse versions; default: %(default)s")
    found = own.parse_known_args()[0]
    workshop: list[Workshop] = []

    def stack_of(state: DemoState, project: Path) -> Stack:
        workshop.append(Workshop(state.folder / "coreml", WORSE[: found.worse]))
        return Stack(state, project, extras=extras(state.folder, project))

    def story(stack: Stack, console: Console) -> str:
        return tell(stack, console, workshop[-1], nights=found.nights)

    os.environ["TQDM_DISABLE"] = "1"  # coremltools draws bars; it is imported later, and looks then
    demo = Demo("make demo-coreml", str(main.__doc__), (DemoCoreMLError,), story, stack_of)
    try:
        return run_demo(demo, [own])
    finally:
        for one in workshop:
            one.close()


def extras(folder: Path, project: Path) -> Extras:
    """Write the definitions and the stand-in for Apple's programs.

    :param folder: of the demo
    :param project: that the other definition files come from
    """
    include = Path(shutil.copytree(project / "include", folder / "include"))
    models = folder / "coreml" / "models"
    units = {_ENCODER: ["CPU_AND_NE", "CPU_ONLY"], _DECODER: ["CPU_AND_NE"]}
    definitions = {
        "version": 1,
        "models": [
            {
                "name": name,
                "path": str(models / f"{name}-v{{version}}.mlpackage"),
                "compute_units": units[name],
            }
            for name in NAMES
        ],
        "devices": [
            {
                "name": PHONE,
                "backend": "connected-device",
                "connection": _CONNECTION,
                "compute_units": ["CPU_AND_NE"],
            },
            {"name": LINUX, "backend": LINUX, "compute_units": ["CPU_ONLY"]},
        ],
        "sessions": _SESSIONS,
    }
    (include / "coreml.yaml").write_text(yaml.safe_dump(definitions, sort_keys=False))
    load_coreml(include)
    script = AppleScript(
        devices=(ScriptedDevice(),), timings=(Timing(session_noise=0.01, noise=0.01),), seed=7
    )
    # As on a Mac: a build of the runner app is kept below the user's home.
    environment = {**AppleToolchain(folder / "apple").install(script), "HOME": str(folder / "home")}
    (folder / "home").mkdir()
    connection = {"conn_type": "fastvlm_apple_device", "login": "ABCDE12345", "extra": {}}
    return Extras(include, {_CONNECTION: connection}, environment)


@dataclass(frozen=True)
class Version:
    """A version of a model.

    :param name: of the model
    :param version: of it
    :param variant: what is wrong with it
    """

    name: Name
    version: int
    variant: Variant


class Workshop:
    """Builds versions of models aside, while other things happen, and puts them where they are looked for.

    :param folder: of both
    :param worse: versions after the first
    """

    def __init__(self, folder: Path, worse: Sequence[Mapping[Name, Variant]]) -> None:
        self._aside, self._models = folder / "aside", folder / "models"
        self._models.mkdir(parents=True)
        self.rounds = [[Version(name, 1, "good") for name in NAMES]]
        self.rounds += [
            [Version(name, number, variant) for name, variant in one.items()]
            for number, one in enumerate(worse, start=2)
        ]
        self._pool = ThreadPoolExecutor(1)
        self._golden = {name: self._pool.submit(self._make_golden, name) for name in NAMES}
        self._packages: dict[Version, Future[Path]] = {
            one: self._pool.submit(build_model, self._aside, one.name, one.version, one.variant)
            for versions in self.rounds
            for one in versions
        }

    def put(self, number: int) -> None:
        """Put the versions of one round there, each in one step.

        :param number: of the round
        """
        for version in self.rounds[number]:
            self._golden[version.name].result()
            package = self._packages[version].result()
            package.rename(self._models / package.name)

    def close(self) -> None:
        """Build nothing more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _make_golden(self, name: Name) -> None:
        """Golden outputs: what the original gives, in single precision."""
        from fastvlm_ops.core.coreml.golden import write_golden
        from fastvlm_ops.core.coreml.packages import digest
        from fastvlm_ops.core.coreml.reference import ReferenceModel

        original = build_model(self._aside / "original", name, 0, "original")
        inputs = example_inputs(name)
        outputs = ReferenceModel(original).predict(inputs)
        folder = self._models / f"{name}.golden"
        write_golden(
            folder, inputs, outputs, model=name, made_by="linux-reference fp32", digest=digest(original)
        )


def tell(stack: Stack, console: Console, workshop: Workshop, *, nights: int) -> str:
    """Run it on a stack that is up, and return what is printed at the end.

    :param workshop: that builds the models
    :param nights: good ones before anything gets worse
    :raises DemoCoreMLError: a run did not end as it should
    :raises AirflowError: Airflow refused a request, or a run did not end in time
    """
    with stack.client() as airflow:
        airflow.wait_for_dag(DAG)
        console.say("building the first versions")
        workshop.put(0)
        airflow.unpause(DAG)
        console.say(f"{DAG}: waits to start by itself, since there are packages that no run has looked at")
        lines = [_row(workshop, 0, _first_run(airflow, console))]
        for _ in range(1, nights):
            lines.append(_row(workshop, 0, _run(airflow, console)))
        for number in range(1, len(workshop.rounds)):
            workshop.put(number)
            lines.append(_row(workshop, number, _run(airflow, console), worse=True))
    return "\n\n".join(
        [
            "Two models on an iPhone that is a stand-in, as its times are, and one on this machine by ONNX.",
            *lines,
            "A run with a regression is red, and what it measured is kept out of the baseline.",
        ]
    )


def _first_run(airflow: AirflowClient, console: Console, timeout_seconds: float = 120) -> RunResult:
    """Wait for the run that a new package starts."""
    deadline = time.monotonic() + timeout_seconds
    while not (runs := airflow.runs(DAG)):
        if time.monotonic() > deadline:
            raise DemoCoreMLError(f"no run of {DAG} started by itself within {timeout_seconds:.0f} s")
        time.sleep(0.5)
    run_id = runs[0]["dag_run_id"]
    console.say(f"{DAG}: {runs[0]['run_type']} run")
    return airflow.wait_for_run(DAG, run_id, progress=partial(_progress, console))


def _run(airflow: AirflowClient, console: Console) -> RunResult:
    console.say(f"{DAG}: triggered")
    return airflow.run(DAG, progress=partial(_progress, console))


def _progress(console: Console, line: str) -> None:
    console.say(f"{DAG}: {line}")


def _row(workshop: Workshop, number: int, run: RunResult, *, worse: bool = False) -> str:
    """What is told of one run: its verdicts, and what the gate says."""
    failed = [task.task_id for task in failed_tasks(run)]
    if failed != (["regression_gate"] if worse else []):
        raise DemoCoreMLError(f"{run.run_id} is {run.state}; failed: {', '.join(failed) or 'nothing'}")
    compared: dict[str, Any] = run.values("compare_with_baseline")[0]
    variants = {one.name: one for one in workshop.rounds[number]}
    rows: list[tuple[str, ...]] = [("model", "version", "what it is", "device", "verdict", "green")]
    rows += [
        (
            one["model"],
            one["version"],
            _WORDS[variants[one["model"]].variant],
            one["device"],
            one["verdict"],
            "yes" if one["green"] else "no",
        )
        for one in compared["runs"]
    ]
    said = [f"  {problem['text']}" for problem in compared["problems"]]
    title = f"{run.run_id} ({run.seconds:.0f} s): {run.state}"
    return "\n".join([title, "", table(rows), *([""] if said else []), *said])


if __name__ == "__main__":
    sys.exit(main())
