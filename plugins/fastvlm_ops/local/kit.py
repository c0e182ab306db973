"""A demo kit, made on this machine and real: Core ML packages, configuration, a database, plain files.

The same seed gives the same kit. Its parts are where include/components.yaml looks for them.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from fastvlm_ops.local.kit_files import (
    build_configuration,
    build_uploads,
    evolve_configuration,
    evolve_uploads,
)
from fastvlm_ops.local.kit_models import FIRST_MODELS, NEXT_MODEL, build_models
from fastvlm_ops.local.writer import create_database

DATABASE = Path("data/application.db")


def build_kit(folder: Path, *, seed: int = 1, progress: Callable[[str], None] = lambda _line: None) -> None:
    """Build the kit of the first day, of some 110 MiB.

    :param folder: that is made anew
    :param seed: of all that is in it
    :param progress: called with what was made
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    build_configuration(folder / "configuration", seed=seed)
    build_uploads(folder / "uploads", seed=seed)
    progress("configuration and uploads")
    create_database(folder / DATABASE, seed=seed)
    progress("application database")
    for model in FIRST_MODELS:
        build_models(folder / "models", [model], seed=seed)
        progress(model.file_name)


def evolve_kit(folder: Path, *, seed: int = 1) -> None:
    """Change a kit as a day does: a new model version that shares most weights, configuration, uploads.

    The database is changed by its writer.

    :param folder: of a kit of the first day
    :param seed: that it was built with
    """
    build_models(folder / "models", [NEXT_MODEL], seed=seed)
    evolve_configuration(folder / "configuration", seed=seed)
    evolve_uploads(folder / "uploads", seed=seed)


def main() -> None:
    """Build a kit, or make it a day older."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--evolve", action="store_true", help="change an existing kit as a day does")
    arguments = parser.parse_args()
    started = time.monotonic()
    if arguments.evolve:
        evolve_kit(arguments.folder, seed=arguments.seed)
        return
    build_kit(
        arguments.folder,
        seed=arguments.seed,
        progress=lambda line: print(f"{time.monotonic() - started:6.1f} s  {line}", flush=True),
    )


if __name__ == "__main__":
    main()
