"""Arithmetic of operations, against what one works out by hand, and of shapes that only a run tells."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coremltools import EnumeratedShapes, TensorType
from coremltools.converters.mil import Builder
from coremltools.converters.mil.mil import get_new_symbol

from fastvlm_ops.core.coreml.inspecting import Inspection, inspect_package
from tests.coreml_kit import Build, build_program


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


def recurrent(x: Any, gates: int, operation: Callable[..., Any], **more: Any) -> Any:
    # 5 steps of 2 sequences of 3 numbers, into states of 7.
    weights = {"weight_ih": ones(gates * 7, 3), "weight_hh": ones(gates * 7, 7)}
    return operation(x=x, initial_h=ones(2, 7), **weights, **more)


CASES: dict[str, tuple[list[tuple[int, ...]], Callable[..., Any], float]] = {
    "conv": ([(1, 4, 10, 10)], lambda x: Builder.conv(x=x, weight=ones(6, 4, 3, 3)), 8 * 8 * 6 * 4 * 9),
    "strided, padded": (
        [(2, 4, 10, 10)],
        lambda x: Builder.conv(x=x, weight=ones(6, 4, 3, 3), strides=[2, 2], pad_type="same"),
        2 * 5 * 5 * 6 * 4 * 9,
    ),
    "grouped": (
        [(1, 4, 10, 10)],
        lambda x: Builder.conv(x=x, weight=ones(8, 2, 3, 3), groups=2),
        8 * 8 * 8 * 2 * 9,
    ),
    "depthwise": (
        [(1, 4, 10)],
        lambda x: Builder.conv(x=x, weight=ones(4, 1, 3), groups=4),
        8 * 4 * 3,
    ),
    "conv_transpose": (
        [(1, 4, 5, 5)],
        lambda x: Builder.conv_transpose(x=x, weight=ones(4, 6, 2, 2), strides=[2, 2]),
        # Each of 25 places of 4 channels to 6 channels of 2 x 2.
        25 * 4 * 6 * 4,
    ),
    "linear": ([(3, 8)], lambda x: Builder.linear(x=x, weight=ones(5, 8)), 3 * 8 * 5),
    "matmul": ([(2, 3, 4), (2, 4, 5)], lambda x, y: Builder.matmul(x=x, y=y), 2 * 3 * 4 * 5),
    "matmul, transposed": (
        [(2, 4, 3), (2, 5, 4)],
        lambda x, y: Builder.matmul(x=x, y=y, transpose_x=True, transpose_y=True),
        2 * 3 * 4 * 5,
    ),
    "matmul, spread": ([(1, 3, 4), (7, 4, 5)], lambda x, y: Builder.matmul(x=x, y=y), 7 * 3 * 4 * 5),
    "einsum": (
        [(2, 8, 3, 4), (2, 4, 3, 5)],
        lambda x, y: Builder.einsum(values=(x, y), equation="nchw,nwhu->nchu"),
        2 * 8 * 3 * 4 * 5,
    ),
    "attention": (
        [(1, 2, 6, 8), (1, 2, 9, 8), (1, 2, 9, 10)],
        lambda q, k, v: Builder.scaled_dot_product_attention(query=q, key=k, value=v),
        2 * 6 * 9 * (8 + 10),
    ),
    "gru": ([(5, 2, 3)], lambda x: recurrent(x, 3, Builder.gru)[0], 5 * 2 * 3 * 7 * (3 + 7)),
    "lstm": (
        [(5, 2, 3)],
        lambda x: recurrent(x, 4, Builder.lstm, initial_c=ones(2, 7))[0],
        5 * 2 * 4 * 7 * (3 + 7),
    ),
    "rnn": ([(5, 2, 3)], lambda x: recurrent(x, 1, Builder.rnn)[0], 5 * 2 * 7 * (3 + 7)),
    "not counted": ([(3, 8)], lambda x: Builder.softmax(x=Builder.gelu(x=x), axis=-1), 0),
}


@pytest.mark.parametrize("case", CASES)
def test_multiplications_with_their_additions(tmp_path: Path, case: str) -> None:
    inputs, body, expected = CASES[case]
    assert inspect_package(build_program(tmp_path, inputs, body)).flops == 2 * expected


def test_those_of_the_decoder(coreml_package: Build) -> None:
    """Of 64 tokens: three blocks and the head; the products of attention are of all tokens with all."""
    block = 64 * (4 * 128**2 + 3 * 128 * 256) + 2 * 64 * 64 * 128
    for variant in ("good", "uncompressed"):
        found = inspect_package(coreml_package("TextDecoder", variant))
        assert found.flops == 2 * (3 * block + 64 * 128 * 512)
        assert sum(found.operation_flops.values()) == found.flops
        assert len(found.operation_flops) == 3 * (5 + 2) + 1


def test_keys_are_the_first_outputs(tmp_path: Path) -> None:
    def body(x: Any) -> Any:
        return Builder.linear(
            x=Builder.linear(x=x, weight=ones(4, 8), name="one"), weight=ones(2, 4), name="two"
        )

    found = inspect_package(build_program(tmp_path, [(3, 8)], body))
    assert found.operation_flops == {"one": 2 * 3 * 8 * 4, "two": 2 * 3 * 4 * 2}


class TestUnknown:
    def flexible(self, tmp_path: Path) -> Inspection:
        spec = Builder.TensorSpec(shape=(get_new_symbol(), 8))
        import coremltools

        def body(x: Any) -> Any:
            return Builder.linear(x=Builder.relu(x=x), weight=ones(5, 8))

        program = Builder.program(input_specs=[spec], opset_version=coremltools.target.iOS17)(body)
        model = coremltools.convert(
            program,
            inputs=[TensorType(name="x", shape=EnumeratedShapes(shapes=[(1, 8), (4, 8)], default=(4, 8)))],
            convert_to="mlprogram",
            minimum_deployment_target=coremltools.target.iOS17,
            skip_model_load=True,
        )
        model.save(str(tmp_path / "flexible.mlpackage"))
        return inspect_package(tmp_path / "flexible.mlpackage")

    def test_a_flexible_shape_has_no_total(self, tmp_path: Path) -> None:
        found = self.flexible(tmp_path)
        assert (found.flops, found.operation_flops) == (None, {})
        assert found.inputs[0].flexible
        assert found.inputs[0].shape == (4, 8)

    def test_nor_has_a_loop(self, tmp_path: Path) -> None:
        def body(x: Any) -> Any:
            result = Builder.while_loop(
                _cond=lambda y: Builder.less(x=Builder.reduce_sum(x=y), y=np.float32(100)),
                _body=lambda y: (Builder.linear(x=y, weight=ones(8, 8)),),
                loop_vars=(x,),
            )
            return Builder.linear(x=result, weight=ones(8, 8), name="after")

        found = inspect_package(build_program(tmp_path, [(3, 8)], body))
        assert found.flops is None
        assert found.operation_flops == {"after": 2 * 3 * 8 * 8}
        assert found.operations["linear"] == 2
