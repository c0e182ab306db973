"""``fastvlm-ops make-golden``: the outputs that every version of a Core ML model is compared with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fastvlm_ops.cli.errors import CommandError

if TYPE_CHECKING:
    from fastvlm_ops.core.coreml.golden import Golden


@dataclass(frozen=True)
class Wanted:
    """What golden outputs are made of, and where they go.

    :param model: as in ``coreml.yaml``
    :param original: package that computes them; None where they are given
    :param inputs: ``.npz`` with one array an input; None for inputs that are made up
    :param outputs: ``.npz`` with the outputs, where something else computed them
    :param into: folder for them; the one that ``coreml.yaml`` says where None
    :param replace: whether golden outputs that are there already may be replaced
    """

    model: str
    original: Path | None = None
    inputs: Path | None = None
    outputs: Path | None = None
    into: Path | None = None
    replace: bool = False


def run(wanted: Wanted, tell: Callable[[str], None]) -> int:
    """Make golden outputs and say what came of it.

    :param wanted: what of, and where to
    :param tell: takes one line
    :returns: 0
    :raises CommandError: they cannot be made, or are there already
    """
    from fastvlm_ops.core.coreml.errors import CoreMLError
    from fastvlm_ops.core.coreml.golden import DESCRIPTION

    if (wanted.original is None) == (wanted.outputs is None):
        raise CommandError("give --from, or --inputs and --outputs: one of the two")
    folder = wanted.into if wanted.into is not None else _declared_folder(wanted.model)
    if (folder / DESCRIPTION).exists() and not wanted.replace:
        message = "has golden outputs already; results before and after another set are not compared"
        raise CommandError(f"{folder}: {message}. Replace them with --replace")
    try:
        golden = _make(wanted, folder)
    except CoreMLError as error:
        raise CommandError(str(error)) from error
    except OSError as error:
        raise CommandError(f"{folder}: cannot be written: {error.strerror}") from error
    except ImportError as error:
        raise CommandError(f"{error.name} is not installed; install fastvlm-ops[coreml]") from error
    tell(f"{folder}: golden outputs {golden.id} of {golden.model}, made by {golden.made_by}")
    return 0


def _make(wanted: Wanted, folder: Path) -> Golden:
    from fastvlm_ops.core.coreml.arrays import read_arrays
    from fastvlm_ops.core.coreml.golden import write_golden

    inputs = read_arrays(wanted.inputs) if wanted.inputs is not None else None
    if wanted.original is not None:
        from fastvlm_ops.core.coreml.making_golden import make_golden

        return make_golden(wanted.original, folder, model=wanted.model, inputs=inputs)
    if wanted.outputs is None or inputs is None:
        raise CommandError("give --from, or --inputs and --outputs")
    made_by = f"given: {wanted.outputs.name}"
    outputs = read_arrays(wanted.outputs)
    return write_golden(folder, inputs, outputs, model=wanted.model, made_by=made_by, digest="")


def _declared_folder(name: str) -> Path:
    try:
        from fastvlm_ops import settings
        from fastvlm_ops.hooks.coreml_models import models_root
    except ImportError:
        raise CommandError("Airflow is not installed here; say where to by --into") from None
    from fastvlm_ops.core.config import DefinitionError, load_coreml
    from fastvlm_ops.core.coreml.errors import PackageRefusedError
    from fastvlm_ops.core.coreml.packages import find_packages

    try:
        definitions = load_coreml(settings.include_dir())
        model, root = definitions.model(name), models_root(definitions)
        packages = find_packages(model, root)
    except (DefinitionError, PackageRefusedError, settings.SettingError) as error:
        raise CommandError(str(error)) from error
    if not packages:
        raise CommandError(f"there is no package at {model.path}, beside which they would be; give --into")
    return model.golden_folder(packages[0].path, packages[0].version, root)
