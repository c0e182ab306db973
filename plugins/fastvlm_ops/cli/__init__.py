"""The command ``fastvlm-ops``: puts files in place, says what is not right, and checks definitions.

Each command imports what it needs by itself: ``validate FOLDER`` works where there is no Airflow.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from fastvlm_ops import __version__
from fastvlm_ops.cli.drills import add_command as add_drills
from fastvlm_ops.cli.errors import CommandError
from fastvlm_ops.cli.keys import add_commands

__all__ = ["main"]

Commands = argparse._SubParsersAction  # argparse has no public name for what add_subparsers returns


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    :param arguments: of the command line; those of this process unless given
    :returns: the exit code: 0 when all is well, 1 when something is not, 2 when it was called wrongly
    """
    # Airflow reads these when it is imported. This is no task: connections and pools are in its own database.
    os.environ.setdefault("_AIRFLOW_PROCESS_CONTEXT", "server")
    os.environ["AIRFLOW__LOGGING__LOGGING_LEVEL"] = "CRITICAL"  # what it logs would mix with what we say
    options = _parser().parse_args(arguments)
    try:
        code: int = options.run(options)
    except CommandError as error:
        sys.stderr.write(f"fastvlm-ops: {error}\n")
        return 1
    return code


def tell(line: str) -> None:
    """Print one line."""
    sys.stdout.write(f"{line}\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fastvlm-ops", description="Brings FastVLM Ops into an Airflow, and looks after it there."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_init(commands)
    _add_doctor(commands)
    _add_validate(commands)
    _add_make_golden(commands)
    _add_prove_device(commands)
    _add_receive_wal(commands)
    _add_storage_classes(commands)
    _add_reap_faults(commands)
    add_drills(commands, tell)
    add_commands(commands, tell)
    return parser


def _add_init(commands: Commands[argparse.ArgumentParser]) -> None:
    text = (
        "Write DAGs, definition files and the plugin into this Airflow, and create the pools that they need."
        " Files that a person has edited are never replaced: the new version is put beside them as NAME.new."
    )
    command = commands.add_parser(
        "init", help="put DAGs, definitions and the plugin in place", description=text
    )
    command.add_argument(
        "--into",
        type=Path,
        metavar="FOLDER",
        help="write dags/, include/ and plugins/ below this folder, and leave Airflow alone",
    )
    command.add_argument(
        "--back-up",
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="write a components.yaml that backs this folder, or SQLite database, up under this name; only"
        " where nobody has edited one yet. May be given several times",
    )
    command.add_argument(
        "--bring-back", action="store_true", help="also write files that init wrote and a person removed"
    )
    command.add_argument("--dry-run", action="store_true", help="only say what would be done")
    command.set_defaults(run=_init)


def _add_doctor(commands: Commands[argparse.ArgumentParser]) -> None:
    text = (
        "Try everything that a backup needs, and say how to mend what fails. Exit code 1 when something"
        " failed, or could not be tried. Writes nothing but a few bytes below probe/ in the bucket, which"
        " it removes."
    )
    command = commands.add_parser(
        "doctor", help="say what is not right, and how to mend it", description=text
    )
    command.add_argument("--json", action="store_true", help="print the findings as JSON")
    command.add_argument("--fix", action="store_true", help="create pools that are missing")
    command.set_defaults(run=_doctor)


def _add_validate(commands: Commands[argparse.ArgumentParser]) -> None:
    text = "Check every file of a folder of definition files. Exit code 1 when one is wrong or not known."
    command = commands.add_parser("validate", help="check the definition files", description=text)
    command.add_argument(
        "folder",
        type=Path,
        nargs="?",
        help="the folder; that of this Airflow ([fastvlm_ops] include_dir) unless given",
    )
    command.set_defaults(run=_validate)


def _add_make_golden(commands: Commands[argparse.ArgumentParser]) -> None:
    text = (
        "Make the outputs that each version of a Core ML model is compared with, from the model that they are"
        " made of. They go beside the packages, where coreml.yaml says."
    )
    command = commands.add_parser("make-golden", help="make golden outputs of a model", description=text)
    command.add_argument("model", help="as in coreml.yaml")
    command.add_argument(
        "--from",
        dest="original",
        type=Path,
        metavar="PACKAGE",
        help="package of the original, best in fp32; it is run by the Linux reference",
    )
    command.add_argument(
        "--inputs", type=Path, metavar="NPZ", help="one array an input; made up unless given"
    )
    command.add_argument(
        "--outputs",
        type=Path,
        metavar="NPZ",
        help="what the original gave for --inputs, instead of running it",
    )
    command.add_argument("--into", type=Path, metavar="FOLDER", help="write there")
    command.add_argument("--replace", action="store_true", help="replace golden outputs that are there")
    command.set_defaults(run=_make_golden)


def _add_prove_device(commands: Commands[argparse.ArgumentParser]) -> None:
    from fastvlm_ops.cli.prove_device import KINDS

    text = (
        "Run a small model on a real device, and check each thing that the benchmarks rely on: finding it,"
        " building, installing and launching the runner, loading, predictions and whether they are right,"
        " placement, cleaning up. Exit code 1 when something is not as it has to be."
    )
    command = commands.add_parser("prove-device", help="try a Core ML device", description=text)
    command.add_argument(
        "name", nargs="?", default="", help="of the device in coreml.yaml; else --kind says which"
    )
    command.add_argument("--kind", choices=KINDS, default=KINDS[0], help="the only one of this kind here")
    command.add_argument("--udid", default="", help="of the device, where several are connected")
    command.add_argument("--team", default="", help="development team that signs the runner app")
    command.add_argument("--report", type=Path, metavar="FILE", help="write all that was found, as JSON")
    command.set_defaults(run=_prove_device)


def _add_receive_wal(commands: Commands[argparse.ArgumentParser]) -> None:
    text = (
        "Keep receiving the write-ahead log of a PostgreSQL component, and store each finished segment in the"
        " bucket. To be kept running by systemd or a container engine; SIGTERM ends it within seconds, and"
        " nothing is lost. Exit code 3 when the server or the bucket has other WAL, which a person has to"
        " look at, and 4 when another receiver is at work."
    )
    command = commands.add_parser("receive-wal", help="receive PostgreSQL's WAL", description=text)
    command.add_argument("--component", required=True, metavar="NAME", help="as in components.yaml")
    command.add_argument("--once", action="store_true", help="store what is finished now, and end")
    command.set_defaults(run=_receive_wal)


def _add_storage_classes(commands: Commands[argparse.ArgumentParser]) -> None:
    text = (
        "Show, or apply to the bucket, the lifecycle rule that moves packs to other storage classes as they"
        " age, as components.yaml says. Rules that others have made stay as they are. Exit code 1 when the"
        " bucket has not what the file says, or a rule would remove backups."
    )
    command = commands.add_parser(
        "storage-classes", help="show or apply the classes that packs move to", description=text
    )
    command.add_argument("action", choices=("show", "apply"))
    command.add_argument(
        "--connection",
        default="fastvlm_s3",
        metavar="ID",
        help="connection to the bucket, of who may change its lifecycle rules; fastvlm_s3 unless given",
    )
    command.set_defaults(run=_storage_classes)


def _add_reap_faults(commands: Commands[argparse.ArgumentParser]) -> None:
    text = (
        "Take back the faults of disaster-recovery drills on this machine whose time to live is over. To be"
        " kept running by systemd or a container engine on every worker that runs drills, as the workers'"
        " user; it needs no database. Exit code 1 when --once leaves a fault or its rows, and 4 when another"
        " one is at work."
    )
    command = commands.add_parser(
        "reap-faults", help="take back faults of drills that are over", description=text
    )
    command.add_argument("--once", action="store_true", help="look once, and end")
    command.add_argument(
        "--drill-dir", type=Path, metavar="FOLDER", help="of the drills; [fastvlm_ops] drill_dir unless given"
    )
    command.set_defaults(run=_reap_faults)


def _init(options: argparse.Namespace) -> int:
    from fastvlm_ops.cli.init import run

    return run(
        into=options.into,
        back_up=options.back_up,
        bring_back=options.bring_back,
        dry_run=options.dry_run,
        tell=tell,
    )


def _doctor(options: argparse.Namespace) -> int:
    from fastvlm_ops.cli.doctor import run

    return run(as_json=options.json, fix=options.fix, tell=tell)


def _prove_device(options: argparse.Namespace) -> int:
    from fastvlm_ops.cli.prove_device import Wanted, run

    wanted = Wanted(options.name, options.kind, options.udid, options.team)
    return run(wanted, options.report, tell)


def _receive_wal(options: argparse.Namespace) -> int:
    from fastvlm_ops.cli.receive_wal import run

    return run(options.component, options.once, tell)


def _storage_classes(options: argparse.Namespace) -> int:
    from fastvlm_ops.cli.storage_classes import run

    return run(options.action, options.connection, tell)


def _reap_faults(options: argparse.Namespace) -> int:
    from fastvlm_ops.cli.reap_faults import run

    return run(options.drill_dir, options.once, tell)


def _validate(options: argparse.Namespace) -> int:
    from fastvlm_ops.cli.validate import run

    return run(options.folder, tell)


def _make_golden(options: argparse.Namespace) -> int:
    from fastvlm_ops.cli.make_golden import Wanted, run

    wanted = Wanted(
        options.model, options.original, options.inputs, options.outputs, options.into, options.replace
    )
    return run(wanted, tell)
