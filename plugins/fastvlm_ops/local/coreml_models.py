"""Small Core ML models with a history: good versions, and versions that are worse in one way each.

``VisionEncoder`` is built as FastVLM's image encoder is, ``TextDecoder`` as a language model is. Good
versions of a model compute the same, with 8-bit weights; they differ in what they say of themselves. The same
arguments give the same bytes.
"""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal, get_args

from fastvlm_ops.local.coreml_networks import (
    IMAGE_SHAPE,
    TOKENS,
    VOCABULARY,
    Shape,
    Weights,
    decode,
    encode,
)
from fastvlm_ops.local.kit_models import draw_normal, settle

if TYPE_CHECKING:
    import numpy as np

    from fastvlm_ops.core.coreml.golden import Golden

Name = Literal["VisionEncoder", "TextDecoder"]
Variant = Literal[
    "good",
    "original",  # fp32 and uncompressed: what good versions were made of, and golden outputs come from
    "slower",
    "drift",
    "overflow",
    "uncompressed",
    "bigger",
    "cpu_op",
]
NAMES: tuple[Name, ...] = get_args(Name)
VARIANTS: tuple[Variant, ...] = get_args(Variant)


@dataclass(frozen=True)
class _Making:
    """How a variant is made.

    :param shape: of the network
    :param drifted: whether noise is added to the weights
    :param compressed: whether weights are of 8 bits
    :param single_precision: whether it computes in fp32
    """

    shape: Shape = field(default_factory=Shape)
    drifted: bool = False
    compressed: bool = True
    single_precision: bool = False


_MAKING: dict[Variant, _Making] = {
    "good": _Making(),
    "original": _Making(compressed=False, single_precision=True),
    "slower": _Making(Shape(idle_blocks=1)),
    "drift": _Making(drifted=True),
    "overflow": _Making(Shape(scores_overflow=True)),
    "uncompressed": _Making(compressed=False),
    "bigger": _Making(Shape(idle_hidden=128, positions=1152)),
    "cpu_op": _Making(Shape(gathered_values=True)),
}
# Share of a weight's deviation that drift adds to it: it leaves either model with a PSNR of some 30 dB.
_NOISE: dict[Name, float] = {"VisionEncoder": 0.08, "TextDecoder": 0.04}
# Tables and masks are no weights; 8 bits would blur what has to be exact.
_EXACT = ("cosines", "sines", "mask")


def build_model(
    folder: Path, name: Name, version: int | str, variant: Variant = "good", *, seed: int = 1
) -> Path:
    """Write one version of a model.

    :param folder: that is made where absent; a package of the same version in it is replaced
    :param name: of the model
    :param version: of the package, which tells it in its name and description
    :param variant: what is wrong with it: ``slower`` (more blocks), ``drift`` (other weights), ``overflow``
        (finite in fp32, not in fp16), ``uncompressed``, ``bigger`` (the same operations, wider), ``cpu_op``
        (an operation that the Neural Engine does not have)
    :param seed: of the weights
    :returns: the package
    """
    # Importing it takes seconds, and it warns of machines that cannot run models.
    logging.getLogger("coremltools").setLevel(logging.ERROR)
    import coremltools

    making = _MAKING[variant]
    precision = coremltools.precision
    model = coremltools.convert(
        _program(name, making, seed),
        convert_to="mlprogram",
        compute_precision=precision.FLOAT32 if making.single_precision else precision.FLOAT16,
        minimum_deployment_target=coremltools.target.iOS17,
        pass_pipeline=_compression(name) if making.compressed else coremltools.PassPipeline.EMPTY,
        skip_model_load=True,
    )
    model.short_description = f"{name}, version {version}"
    model.author = "fastvlm-ops"
    model.version = str(version)
    package = folder / f"{name}-v{version}.mlpackage"
    shutil.rmtree(package, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    model.save(str(package))
    settle(package)
    return package


def example_inputs(name: Name, *, seed: int = 1) -> dict[str, np.ndarray]:
    """Return inputs that a model is tried with.

    :param name: of the model
    :param seed: of the inputs
    """
    import numpy as np

    chance = np.random.default_rng(seed)
    if name == "TextDecoder":
        return {"tokens": chance.integers(0, VOCABULARY, (1, TOKENS), dtype=np.int32)}
    return {"images": chance.random(IMAGE_SHAPE, dtype=np.float32)}


def build_golden(folder: Path, name: Name, *, seed: int = 1) -> Golden:
    """Write golden inputs and outputs of a model, as its original gives them.

    :param folder: that is made where absent
    :param name: of the model
    :param seed: of the weights and the inputs
    """
    from fastvlm_ops.core.coreml.making_golden import make_golden

    with TemporaryDirectory(prefix="coreml-original-") as scratch:
        original = build_model(Path(scratch), name, "original", "original", seed=seed)
        return make_golden(original, folder, model=name, inputs=example_inputs(name, seed=seed))


def _program(name: Name, making: _Making, seed: int) -> Any:
    import coremltools
    import numpy as np
    from coremltools.converters.mil import Builder
    from coremltools.converters.mil.mil import types

    text = name == "TextDecoder"
    kind = np.float32 if making.single_precision else np.float16
    word = "fp32" if making.single_precision else "fp16"
    spec = Builder.TensorSpec(
        shape=(1, TOKENS) if text else IMAGE_SHAPE, dtype=types.int32 if text else types.fp32
    )

    def body(inputs: Any) -> Any:
        weights = Weights(partial(_drawn, name, seed, _NOISE[name] if making.drifted else 0.0), kind)
        if text:
            outputs = decode(weights, making.shape, inputs)
        else:
            outputs = encode(weights, making.shape, Builder.cast(x=inputs, dtype=word))
        return Builder.cast(x=outputs, dtype="fp32", name="logits" if text else "image_features")

    # The builder calls inputs what the function calls its arguments.
    program = Builder.program(input_specs=[spec], opset_version=coremltools.target.iOS17)
    return program(lambda tokens: body(tokens)) if text else program(lambda images: body(images))


def _drawn(name: Name, seed: int, noise: float, weight: str, *shape: int) -> np.ndarray:
    numbers = draw_normal(f"{seed} {name} {weight}", *shape)
    if noise:
        numbers = numbers + noise * draw_normal(f"{seed} {name} {weight} noise", *shape)
    return numbers


def _compression(name: Name) -> Any:
    """Return the one pass that stores weights in 8 bits: linearly in the encoder, by tables in the decoder.

    The functions of coremltools.optimize would run all of the other passes too, so that a compressed version
    had other operations than one that is not.
    """
    import coremltools
    from coremltools.optimize import coreml

    table = coreml.OpPalettizerConfig(mode="uniform", nbits=8)
    linear = coreml.OpLinearQuantizerConfig(mode="linear_symmetric")
    kind, config = ("palettize", table) if name == "TextDecoder" else ("linear_quantize", linear)
    compression = f"compression::{kind}_weights"
    pipeline = coremltools.PassPipeline([compression], "compression")
    exact = dict.fromkeys(_EXACT)
    options = {"config": coreml.OptimizationConfig(global_config=config, op_name_configs=exact)}
    pipeline.set_options(compression, options)
    return pipeline
