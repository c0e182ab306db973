"""What a model takes and gives: shapes that are not fixed, pictures, half precision, functions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastvlm_ops.core.coreml.errors import PackageRefusedError, UnsupportedOperationError
from fastvlm_ops.core.coreml.reference import Precision, ReferenceModel
from tests.unit.core.coreml.reference.programs import build, normal

X = normal(2, 3)


def _twice(mb: Any, x: Any) -> Any:
    return mb.mul(x=x, y=np.float32(2), name="twice")


def test_inputs_and_outputs_are_those_of_the_package(tmp_path: Path) -> None:
    model = ReferenceModel(build(tmp_path, {"x": X}, _twice))

    assert [(one.name, one.shape, one.dtype) for one in model.inputs] == [("x", (2, 3), "float32")]
    assert [(one.name, one.shape, one.dtype) for one in model.outputs] == [("twice", (2, 3), "float32")]
    assert [(one.name, one.kind) for one in model.operations] == [("twice", "ios15.mul")]
    assert model.load_ms > 0


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({}, "inputs  are given, expected x"),
        ({"x": X, "y": X}, "inputs x, y are given, expected x"),
        ({"x": X.T}, r"x has shape \[3, 2\], expected \[2, 3\]"),
        ({"x": X[0]}, r"x has shape \[3\], expected \[2, 3\]"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(tmp_path: Path, inputs: dict[str, Any], said: str) -> None:
    model = ReferenceModel(build(tmp_path, {"x": X}, _twice))

    with pytest.raises(ValueError, match=said):
        model.predict(inputs)


def _of_any_length(mb: Any, x: Any) -> Any:
    """Attention over a sequence of any length, with a causal mask that is made as it runs."""
    query, key, value = mb.split(x=x, num_splits=3, axis=-1)
    scores = mb.matmul(x=query, y=key, transpose_y=True)
    ones = mb.fill_like(ref_tensor=scores, value=np.float32(1))
    allowed = mb.band_part(x=ones, lower=-1, upper=0)
    masked = mb.add(x=scores, y=mb.mul(x=mb.sub(x=np.float32(1), y=allowed), y=np.float32(-1e4)))
    attended = mb.matmul(x=mb.softmax(x=masked, axis=-1), y=value)
    last = mb.slice_by_index(
        x=attended, begin=[0, -1, 0], end=[0, 0, 0], begin_mask=[True, False, True], end_mask=[True] * 3
    )
    count = mb.gather(x=mb.shape(x=attended), indices=np.int32(1))
    flat = mb.reshape(
        x=attended, shape=mb.concat(values=(np.int32(1), mb.mul(x=count, y=np.int32(4))), axis=0)
    )
    return last, flat


@pytest.mark.filterwarnings("ignore:Some dimensions in the input shape are unknown")  # which is the point
@pytest.mark.parametrize("length", [1, 5, 9])
def test_shapes_that_are_not_fixed_are_worked_out_as_it_runs(tmp_path: Path, length: int) -> None:
    from coremltools.converters.mil.mil import get_new_symbol

    x = normal(1, length, 12)
    package = build(tmp_path, {"x": x}, _of_any_length, shapes={"x": (1, get_new_symbol(), 12)})

    last, flat = ReferenceModel(package).predict({"x": x}).values()

    q, k, v = np.split(x, 3, axis=-1)
    scores = np.where(np.tri(length, dtype=bool), q @ k.transpose(0, 2, 1), -np.inf)
    shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
    expected = shares / shares.sum(axis=-1, keepdims=True) @ v
    np.testing.assert_allclose(last, expected[:, -1:], atol=1e-5)
    np.testing.assert_allclose(flat, expected.reshape(1, -1), atol=1e-5)


def _squares_in_half_precision(mb: Any, x: Any) -> Any:
    squares = mb.mul(x=x, y=x)
    return mb.cast(x=mb.mul(x=squares, y=np.float16(1 / 1024)), dtype="fp32")


def test_rounding_finds_what_overflows_and_single_precision_hides_it(tmp_path: Path) -> None:
    x = np.array([1.0, 1 / 3, 200.0, 300.0], np.float16)
    package = build(tmp_path, {"x": x}, _squares_in_half_precision)

    (exact,) = ReferenceModel(package).predict({"x": x}).values()
    (rounded,) = ReferenceModel(package, Precision.FP16_ROUNDED).predict({"x": x}).values()

    np.testing.assert_allclose(exact, x.astype(np.float32) ** 2 / 1024, rtol=1e-6)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(rounded, ((x * x) * np.float16(1 / 1024)).astype(np.float32))
    assert np.isinf(rounded[-1])


def test_inputs_are_rounded_as_they_are_declared(tmp_path: Path) -> None:
    package = build(
        tmp_path, {"x": np.zeros(1, np.float16)}, lambda mb, x: mb.cast(x=mb.identity(x=x), dtype="fp32")
    )

    (found,) = ReferenceModel(package).predict({"x": np.array([1 / 3])}).values()

    assert found == np.float32(np.float16(1 / 3)) != np.float32(1 / 3)


@pytest.mark.filterwarnings("ignore:Some dimensions in the input shape are unknown")
def test_a_shape_that_is_open_has_the_usual_one_of_the_package(tmp_path: Path) -> None:
    import coremltools
    from coremltools.converters.mil.mil import get_new_symbol

    lengths = coremltools.RangeDim(lower_bound=2, upper_bound=9, default=5)
    shape = coremltools.Shape(shape=(1, lengths))
    package = build(
        tmp_path,
        {"x": normal(1, 5)},
        lambda mb, x: mb.exp(x=x),
        shapes={"x": (1, get_new_symbol())},
        takes=[coremltools.TensorType(name="x", shape=shape)],
    )

    (feature,) = ReferenceModel(package).inputs

    assert feature.shape == (1, None)
    assert feature.usual_shape == (1, 5)


def _picture_model(folder: Path, layout: str) -> Path:
    import coremltools
    from coremltools.converters.mil import Builder
    from coremltools.converters.mil.mil import types

    channels = 1 if layout == "GRAYSCALE" else 3
    weights = np.array([1, 10, 100], np.float32)[:channels].reshape(1, channels, 1, 1)

    @Builder.program(
        input_specs=[Builder.TensorSpec(shape=(1, channels, 2, 2), dtype=types.fp32)],
        opset_version=coremltools.target.iOS16,
    )
    def program(picture: Any) -> Any:
        return Builder.mul(x=picture, y=weights, name="weighted")

    model = coremltools.convert(
        program,
        convert_to="mlprogram",
        minimum_deployment_target=coremltools.target.iOS16,
        inputs=[
            coremltools.ImageType(
                name="picture",
                shape=(1, channels, 2, 2),
                scale=0.5,
                bias=[1.0, 2.0, 3.0][:channels] if channels > 1 else 1.0,
                color_layout=getattr(coremltools.colorlayout, layout),
            )
        ],
        compute_precision=coremltools.precision.FLOAT32,
        skip_model_load=True,
    )
    model.save(str(folder / "picture.mlpackage"))
    return folder / "picture.mlpackage"


PIXELS = np.arange(12, dtype=np.uint8).reshape(2, 2, 3) * 20


@pytest.mark.parametrize("layout", ["RGB", "BGR"])
def test_a_picture_is_taken_as_pixels_in_its_own_layout_scale_and_bias(tmp_path: Path, layout: str) -> None:
    model = ReferenceModel(_picture_model(tmp_path, layout))

    (found,) = model.predict({"picture": PIXELS}).values()

    planes = (PIXELS if layout == "RGB" else PIXELS[..., ::-1]).transpose(2, 0, 1)[None].astype(np.float32)
    places = np.array([1, 2, 3], np.float32).reshape(1, 3, 1, 1)
    expected = (planes * 0.5 + places) * np.array([1, 10, 100], np.float32).reshape(1, 3, 1, 1)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert model.inputs[0].colour == layout
    assert model.inputs[0].usual_shape == (1, 3, 2, 2)
    as_tensor = model.predict({"picture": planes})
    np.testing.assert_array_equal(next(iter(as_tensor.values())), found)


def test_a_grey_picture_has_one_value_a_pixel(tmp_path: Path) -> None:
    model = ReferenceModel(_picture_model(tmp_path, "GRAYSCALE"))

    (found,) = model.predict({"picture": PIXELS[..., 0]}).values()

    np.testing.assert_allclose(found, PIXELS[..., 0][None, None] * 0.5 + 1, rtol=1e-6)


def _with_gaps(mb: Any, x: Any) -> Any:
    chance = mb.random_uniform(shape=[2, 3], low=0.0, high=1.0, seed=1)
    resized = mb.resize(
        x=mb.reshape(x=x, shape=[1, 1, 2, 3]),
        shape=[4, 4],
        resized_dims=np.uint32(2),
        interpolation_mode="NEAREST_NEIGHBOR",
        sampling_mode="ALIGN_CORNERS",
    )
    return mb.add(x=x, y=chance), mb.random_normal(shape=[2], mean=0.0, stddev=1.0, seed=1), resized


def test_all_that_is_missing_is_named_at_once_and_why(tmp_path: Path) -> None:
    package = build(tmp_path, {"x": X}, _with_gaps)

    with pytest.raises(UnsupportedOperationError) as raised:
        ReferenceModel(package)

    assert raised.value.operations == (
        "random_normal (iOS15)",
        "random_uniform (iOS15)",
        "resize (iOS17): nearest neighbour on the grid ALIGN_CORNERS",
    )


def test_an_operation_that_coremltools_does_not_know_is_named(tmp_path: Path) -> None:
    from coremltools.proto import Model_pb2

    package = build(tmp_path, {"x": X}, _twice)
    file = package / "Data" / "com.apple.CoreML" / "model.mlmodel"
    specification = Model_pb2.Model.FromString(file.read_bytes())
    block = next(iter(specification.mlProgram.functions["main"].block_specializations.values()))
    block.operations[-1].type = "hyperdrive"
    file.write_bytes(specification.SerializeToString())

    with pytest.raises(UnsupportedOperationError, match=r"hyperdrive \(CoreML7\)"):
        ReferenceModel(package)


def test_a_function_is_asked_for_by_name(tmp_path: Path) -> None:
    import coremltools

    both = coremltools.utils.MultiFunctionDescriptor()
    for name, factor in (("double", 2), ("triple", 3)):
        one = build(
            tmp_path,
            {"x": X},
            lambda mb, x, factor=factor: mb.mul(x=x, y=np.float32(factor)),
            target="iOS18",
            name=name,
        )
        both.add_function(str(one), src_function_name="main", target_function_name=name)
    both.default_function_name = "double"
    package = tmp_path / "both.mlpackage"
    coremltools.utils.save_multifunction(both, str(package))

    (default,) = ReferenceModel(package).predict({"x": X}).values()
    (other,) = ReferenceModel(package, function="triple").predict({"x": X}).values()

    np.testing.assert_allclose(default, 2 * X)
    np.testing.assert_allclose(other, 3 * X)
    with pytest.raises(PackageRefusedError, match="has no function quadruple; it has double, triple"):
        ReferenceModel(package, function="quadruple")


def test_a_hostile_package_never_reaches_coremltools(tmp_path: Path) -> None:
    package = build(tmp_path, {"x": X}, _twice)
    secret = build(tmp_path, {"x": X}, lambda mb, x: mb.exp(x=x), name="secret")
    manifest = package / "Manifest.json"
    inside = "com.apple.CoreML/model.mlmodel"
    assert inside in manifest.read_text()
    manifest.write_text(manifest.read_text().replace(inside, f"../../{secret.name}/Data/{inside}"))

    with pytest.raises(PackageRefusedError, match="leads out of the package"):
        ReferenceModel(package)


def test_weights_that_are_cut_off_are_refused(tmp_path: Path) -> None:
    package = build(tmp_path, {"x": X}, lambda mb, x: mb.linear(x=x, weight=normal(400, 3)))
    weights = package / "Data" / "com.apple.CoreML" / "weights" / "weight.bin"
    weights.write_bytes(weights.read_bytes()[:1000])

    with pytest.raises(PackageRefusedError, match="not copied completely"):
        ReferenceModel(package)
