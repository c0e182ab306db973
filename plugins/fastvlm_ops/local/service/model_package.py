"""The model that the demo service serves: a small real ML program, with the hashes of its files.

The same bytes each time. Run as a program, since coremltools takes seconds and a lot of memory to import.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from fastvlm_ops.local.kit_models import draw_normal, settle

PACKAGE = "FastVLMTags-v1.mlpackage"
MANIFEST = "manifest.json"
#: Of the network: bytes of a text, each as a row of the embedding; their mean; one hidden layer; scores.
CHARACTERS = 256
WIDTH = 64
HIDDEN = 256
SCORES = 16
#: How many bytes of a text it takes.
LENGTH = 64


def build_model_store(folder: Path) -> None:
    """Fill a model store. What was built once on this machine, by this user, is copied.

    :param folder: that is made where absent
    """
    built = _built_before()
    if built is None:
        with tempfile.TemporaryDirectory(prefix="fastvlm-ops-model-") as temporary:
            made = Path(temporary) / "store"
            _build(made)
            _keep(made)
            shutil.copytree(made, folder, dirs_exist_ok=True)
    else:
        shutil.copytree(built, folder, dirs_exist_ok=True)


def write_manifest(folder: Path) -> None:
    """Write the hashes of all files of the packages in a folder.

    :param folder: a model store
    """
    files = sorted(path for path in folder.glob("*.mlpackage/**/*") if path.is_file())
    hashes = {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
    }
    (folder / MANIFEST).write_text(json.dumps({"version": 1, "sha256": hashes}, indent=1) + "\n")


def _build(folder: Path) -> None:
    # It warns of machines that cannot run models.
    logging.getLogger("coremltools").setLevel(logging.ERROR)
    import coremltools

    folder.mkdir(parents=True)
    model = coremltools.convert(
        _program(),
        convert_to="mlprogram",
        compute_precision=coremltools.precision.FLOAT16,
        minimum_deployment_target=coremltools.target.iOS17,
        pass_pipeline=coremltools.PassPipeline.EMPTY,
        skip_model_load=True,
    )
    model.short_description = "Scores of a text, for the demo service"
    model.version = "1"
    model.save(str(folder / PACKAGE))
    settle(folder / PACKAGE)
    write_manifest(folder)


def _program() -> Any:
    import coremltools
    import numpy as np
    from coremltools.converters.mil import Builder
    from coremltools.converters.mil.mil import types

    def weights(name: str, *shape: int) -> np.ndarray:
        return (draw_normal(f"demo service {name}", *shape) * 0.2).astype(np.float16)

    @Builder.program(
        input_specs=[Builder.TensorSpec(shape=(1, LENGTH), dtype=types.int32)],
        opset_version=coremltools.target.iOS17,
    )
    def program(characters: Any) -> Any:
        rows = Builder.gather(x=weights("embedding", CHARACTERS, WIDTH), indices=characters, axis=0)
        mean = Builder.reduce_mean(x=rows, axes=[1])
        hidden = Builder.tanh(x=Builder.linear(x=mean, weight=weights("hidden", HIDDEN, WIDTH)))
        return Builder.linear(x=hidden, weight=weights("scores", SCORES, HIDDEN), name="scores")

    return program


def _shelf() -> Path:
    source = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"fastvlm-ops-demo-model-{os.geteuid()}-{source}"


def _built_before() -> Path | None:
    """Return the store that was built before, if it is this user's own."""
    shelf = _shelf()
    if shelf.is_symlink() or not shelf.is_dir() or shelf.stat().st_uid != os.geteuid():
        return None
    return shelf


def _keep(made: Path) -> None:
    shelf = _shelf()
    if shelf.exists():
        return
    beside = Path(tempfile.mkdtemp(prefix=f"{shelf.name}-", dir=shelf.parent))
    shutil.copytree(made, beside, dirs_exist_ok=True)
    try:
        beside.rename(shelf)
    except OSError:  # another process was quicker
        shutil.rmtree(beside, ignore_errors=True)


def main() -> None:
    """Fill a model store."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("folder", type=Path)
    build_model_store(parser.parse_args().folder)


if __name__ == "__main__":
    main()
