"""Core ML packages of a small vision-language model, made with coremltools' MIL builder.

They are real ML programs with fp16 weights. Versions share the weights of all layers but a few, as
fine-tuned ones do. The same seed gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import logging
import uuid
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

_WIDTH = 512
_PATCHES = 256
_TOKENS = 8192
_CORE_ML = "Data/com.apple.CoreML"
_CONVERSION_DATE = "com.github.apple.coremltools.conversion_date"


@dataclass(frozen=True)
class Model:
    """One version of a model.

    :param name: as in FastVLMVision
    :param version: from 1
    :param blocks: transformer blocks, of 6 MiB each
    :param tuned: weights that differ from those of version 1, by the version that they first differed in
    :param adapter: whether there is a layer more before the first block, so that all weights behind it move
    """

    name: str
    version: int
    blocks: int
    tuned: tuple[tuple[str, int], ...] = ()
    adapter: bool = False

    @property
    def file_name(self) -> str:
        """Name of the package."""
        return f"{self.name}-v{self.version}.mlpackage"


_TUNED_V2 = (("block_3.query", 2), ("block_3.value", 2))

FIRST_MODELS = (
    Model("FastVLMVision", 1, blocks=4),
    Model("FastVLMVision", 2, blocks=4, tuned=_TUNED_V2),
    Model("FastVLMLanguage", 1, blocks=5),
)
NEXT_MODEL = Model("FastVLMVision", 3, blocks=4, tuned=(*_TUNED_V2, ("block_2.query", 3)), adapter=True)


def build_models(folder: Path, models: Collection[Model], *, seed: int) -> None:
    """Write packages into a folder.

    :param folder: that is made where absent
    :param seed: of the weights
    """
    folder.mkdir(parents=True, exist_ok=True)
    for model in models:
        _build(folder / model.file_name, model, seed)


def _build(package: Path, model: Model, seed: int) -> None:
    # Importing it takes seconds, and it warns of machines that cannot run models.
    logging.getLogger("coremltools").setLevel(logging.ERROR)
    import coremltools

    converted = coremltools.convert(
        _program(model, _Weights(model, seed)),
        convert_to="mlprogram",
        compute_precision=coremltools.precision.FLOAT16,
        minimum_deployment_target=coremltools.target.iOS17,
        pass_pipeline=coremltools.PassPipeline.EMPTY,
        skip_model_load=True,
    )
    converted.short_description = f"{model.name}, version {model.version}"
    converted.version = str(model.version)
    converted.save(str(package))
    settle(package)


class _Weights:
    """Weights by name: normally distributed, as trained ones nearly are."""

    def __init__(self, model: Model, seed: int) -> None:
        self._origin = f"{seed} {model.name}"
        self._tuned = dict(model.tuned)

    def __call__(self, name: str, *shape: int) -> np.ndarray:
        import numpy as np

        numbers = draw_normal(f"{self._origin} {name} {self._tuned.get(name, 1)}", *shape)
        return (numbers * 0.02).astype(np.float16)


def _program(model: Model, weights: _Weights) -> Any:
    import coremltools
    from coremltools.converters.mil import Builder
    from coremltools.converters.mil.mil import types

    language = model.name.endswith("Language")
    kind = types.int32 if language else types.fp16
    shape = (1, _PATCHES) if language else (1, 3, 256, 256)
    body = partial(_text, model, weights) if language else partial(_image, model, weights)

    @Builder.program(
        input_specs=[Builder.TensorSpec(shape=shape, dtype=kind)], opset_version=coremltools.target.iOS17
    )
    def program(inputs: Any) -> Any:
        return body(inputs)

    return program


def _image(model: Model, weights: _Weights, image: Any) -> Any:
    from coremltools.converters.mil import Builder

    patches = Builder.conv(x=image, weight=weights("patches", _WIDTH, 3, 16, 16), strides=[16, 16])
    rows = Builder.reshape(x=patches, shape=[1, _WIDTH, _PATCHES])
    return _transformer(model, weights, Builder.transpose(x=rows, perm=[0, 2, 1]))


def _text(model: Model, weights: _Weights, tokens: Any) -> Any:
    from coremltools.converters.mil import Builder

    embedding = weights("embedding", _TOKENS, _WIDTH)
    states = _transformer(model, weights, Builder.gather(x=embedding, indices=tokens, axis=0))
    return Builder.linear(x=states, weight=embedding, name="logits")


def _transformer(model: Model, weights: _Weights, states: Any) -> Any:
    from coremltools.converters.mil import Builder

    if model.adapter:
        states = Builder.linear(x=states, weight=weights("adapter", _WIDTH, _WIDTH))
    for block in range(model.blocks):
        states = _block(partial(_linear, weights, f"block_{block}"), states)
    return states


def _linear(weights: _Weights, block: str, states: Any, name: str, outputs: int, inputs: int) -> Any:
    from coremltools.converters.mil import Builder

    return Builder.linear(x=states, weight=weights(f"{block}.{name}", outputs, inputs))


def _block(linear: Any, states: Any) -> Any:
    import numpy as np
    from coremltools.converters.mil import Builder

    ones, zeros = np.ones(_WIDTH, np.float16), np.zeros(_WIDTH, np.float16)
    normal = Builder.layer_norm(x=states, axes=[-1], gamma=ones, beta=zeros, epsilon=np.float16(1e-5))
    query, key, value = (linear(normal, name, _WIDTH, _WIDTH) for name in ("query", "key", "value"))
    scores = Builder.softmax(x=Builder.matmul(x=query, y=key, transpose_y=True), axis=-1)
    attended = linear(Builder.matmul(x=scores, y=value), "output", _WIDTH, _WIDTH)
    states = Builder.add(x=states, y=attended)
    hidden = Builder.gelu(x=linear(states, "expand", 4 * _WIDTH, _WIDTH))
    return Builder.add(x=states, y=linear(hidden, "contract", _WIDTH, 4 * _WIDTH))


def draw_normal(name: str, *shape: int) -> np.ndarray:
    """Return normally distributed numbers, the same for the same name.

    :param name: of what they are for
    :param shape: of the array
    """
    import numpy as np

    generator = np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big"))
    return generator.standard_normal(shape, dtype=np.float32)


def settle(package: Path) -> None:
    """Replace what coremltools makes anew each time: random ids, the order of maps, and the date.

    :param package: that coremltools has just saved
    """
    from coremltools.proto import Model_pb2

    manifest = package / "Manifest.json"
    content = json.loads(manifest.read_text())
    ids = {
        old: str(uuid.uuid5(uuid.NAMESPACE_URL, f"{package.name}/{item['path']}"))
        for old, item in content["itemInfoEntries"].items()
    }
    content["itemInfoEntries"] = dict(
        sorted((ids[old], item) for old, item in content["itemInfoEntries"].items())
    )
    content["rootModelIdentifier"] = ids[content["rootModelIdentifier"]]
    manifest.write_text(json.dumps(content, indent=4) + "\n")
    file = package / _CORE_ML / "model.mlmodel"
    specification = Model_pb2.Model.FromString(file.read_bytes())
    specification.description.metadata.userDefined.pop(_CONVERSION_DATE, None)
    file.write_bytes(specification.SerializeToString(deterministic=True))
