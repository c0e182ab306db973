"""Inspection: what it tells of real packages, and what it refuses."""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.coreml_inspection import SIZE_BYTES, edit_specification, grow_weights
from fastvlm_ops.core.coreml.errors import PackageRefusedError
from fastvlm_ops.core.coreml.inspecting import Feature, Inspection, inspect_package
from tests.coreml_kit import Build, build_program

WEIGHTS = "Data/com.apple.CoreML/weights/weight.bin"
MODEL = "Data/com.apple.CoreML/model.mlmodel"
COMPRESSED_OPERATION = "constexpr_lut_to_dense"
WATCHED = """
import json, sys
from pathlib import Path
import coremltools
from fastvlm_ops.core.coreml.inspecting import inspect_package

opened = []
sys.addaudithook(lambda name, args: opened.append(str(args[0])) if name == "open" else None)
found = inspect_package(Path(sys.argv[1]))
print(json.dumps([found.as_dict(), opened, Path("/proc/self/maps").read_text().splitlines()]))
"""


def refusal(package: Path) -> str:
    with pytest.raises(PackageRefusedError) as caught:
        inspect_package(package)
    return caught.value.reason


class TestTelling:
    def test_the_encoder(self, vision_package: Path) -> None:
        found = inspect_package(vision_package)
        assert (found.spec_version, found.functions) == (8, ("main",))
        assert found.inputs == (Feature("images", "multiArray", "FLOAT32", (1, 3, 64, 64)),)
        assert found.outputs == (Feature("image_features", "multiArray", "FLOAT32", (1, 64, 256)),)
        assert (found.states, found.stateful) == ((), False)
        assert found.operations["conv"] == 33
        assert found.operations["split"] == 3
        assert "const" not in found.operations
        assert found.compression == {"constexpr_affine_dequantize": 32}
        assert found.compressed_share == pytest.approx(0.98, abs=0.005)
        assert found.size_bytes == sum(f.stat().st_size for f in vision_package.rglob("*") if f.is_file())
        assert (found.author, found.version_string) == ("fastvlm-ops", "good")
        assert found.short_description == "VisionEncoder, version good"

    def test_the_decoder(self, text_package: Path) -> None:
        found = inspect_package(text_package)
        assert found.inputs == (Feature("tokens", "multiArray", "INT32", (1, 64)),)
        assert found.outputs == (Feature("logits", "multiArray", "FLOAT32", (1, 64, 512)),)
        assert found.compression == {"constexpr_lut_to_dense": 17}
        # A byte a number: the embedding, three blocks of attention and three gated layers, the head.
        compressed = 2048 * 128 + 3 * (4 * 128**2 + 3 * 128 * 256) + 512 * 128
        assert found.weight_bytes["uint8"] == compressed
        # In halves: a table of 256 for each; and norms, rotary tables, the causal mask, and biases of nought.
        exact = 7 * 128 + 2 * 256 * 32 + 64 * 64 + 3 * (384 + 128 + 256 + 256 + 128) + 512
        assert found.weight_bytes["float16"] == 2 * (17 * 256 + exact)
        assert found.parameters == compressed + exact
        assert found.compressed_share == compressed / found.parameters

    def test_as_json_and_back(self, vision_package: Path) -> None:
        found = inspect_package(vision_package)
        stored = json.loads(json.dumps(found.as_dict()))
        assert Inspection.from_dict(stored) == found
        assert Inspection.from_dict({**stored, "of_a_later_version": 1}) == found

    def test_versions_of_a_model_by_what_is_wrong_with_them(self, coreml_package: Build) -> None:
        def inspected(variant: Any) -> Inspection:
            return inspect_package(coreml_package("TextDecoder", variant))

        good = inspected("good")
        assert inspected("drift").structure_hash == good.structure_hash
        bigger = inspected("bigger")
        assert bigger.structure_hash == good.structure_hash
        assert bigger.size_bytes / good.size_bytes == pytest.approx(1.12, abs=0.01)
        uncompressed = inspected("uncompressed")
        assert (uncompressed.compression, uncompressed.compressed_share) == ({}, 0.0)
        assert uncompressed.structure_hash == good.structure_hash
        assert uncompressed.parameters == good.parameters
        slower = inspected("slower")
        assert slower.flops is not None
        assert good.flops is not None
        assert slower.flops > 1.2 * good.flops
        assert slower.structure_hash != good.structure_hash
        moved = inspected("cpu_op")
        assert moved.operations["gather_along_axis"] == 1
        assert moved.structure_hash != good.structure_hash
        assert moved.flops == good.flops


class TestUnread:
    @pytest.fixture
    def huge(self, own_package: Path) -> Path:
        """A package of 500 MiB: all weights, and one more that fills a sparse file."""
        grow_weights(own_package, SIZE_BYTES)
        assert (own_package / WEIGHTS).stat().st_size > SIZE_BYTES
        return own_package

    def test_weights_are_counted_and_not_opened(self, huge: Path) -> None:
        """In a process of its own, which tells every file that Python opens, by whatever function."""
        done = subprocess.run(
            [sys.executable, "-c", WATCHED, str(huge)],
            capture_output=True,
            text=True,
            check=True,
            timeout=300,
        )
        found, opened, mapped = json.loads(done.stdout)
        assert found["weight_bytes"]["float32"] >= SIZE_BYTES
        assert found["parameters"] >= SIZE_BYTES // 4
        assert found["size_bytes"] > SIZE_BYTES
        assert str(huge / MODEL) in opened
        assert not [name for name in (*opened, *mapped) if "weight.bin" in name]

    def test_weights_that_cannot_be_read_hinder_nothing(self, own_package: Path) -> None:
        before = inspect_package(own_package)
        weights = own_package / WEIGHTS
        size = weights.stat().st_size
        weights.write_bytes(b"")
        os.truncate(weights, size)  # a hole: not one byte of it is what it was
        assert inspect_package(own_package) == before


class TestBroken:
    @pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
    def test_a_specification_that_is_cut_off(self, own_package: Path, share: float) -> None:
        file = own_package / MODEL
        os.truncate(file, int(share * file.stat().st_size))
        assert "model.mlmodel is cut off or damaged" in refusal(own_package)

    @pytest.mark.parametrize("content", [b"\xff" * 100, b"not a model", b"<html></html>", bytes(4096)])
    def test_garbage(self, own_package: Path, content: bytes) -> None:
        (own_package / MODEL).write_bytes(content)
        assert "model.mlmodel" in refusal(own_package)

    @pytest.mark.parametrize(
        ("version", "expected"),
        [
            (0, "has no specification version"),
            (11, "has the specification version 11; versions to 10 are known"),
            (99, "Install a newer coremltools"),
            (5, "specification version 5), not an ML program"),
        ],
    )
    def test_specification_versions(self, own_package: Path, version: int, expected: str) -> None:
        edit_specification(own_package, lambda model: setattr(model, "specificationVersion", version))
        assert expected in refusal(own_package)

    def test_another_kind_of_model(self, own_package: Path) -> None:
        edit_specification(own_package, lambda model: model.neuralNetwork.SetInParent())
        assert refusal(own_package) == (
            "holds neuralNetwork (specification version 8), not an ML program;"
            ' convert it with convert_to="mlprogram"'
        )

    def test_a_file_of_its_own_is_refused_for_what_it_holds(self, own_package: Path, tmp_path: Path) -> None:
        edit_specification(own_package, lambda model: model.neuralNetwork.SetInParent())
        single = (own_package / MODEL).rename(tmp_path / "single.mlmodel")
        assert "holds neuralNetwork" in refusal(single)

    def test_a_file_of_its_own_that_holds_an_ml_program(self, tmp_path: Path) -> None:
        """It has no file for weights, so all of them stand in it."""
        from coremltools.converters.mil import Builder

        package = build_program(tmp_path, [(1, 4)], lambda x: Builder.mul(x=x, y=[1.5, 2.5, 3.5, 4.5]))
        single = (package / MODEL).rename(tmp_path / "single.mlmodel")
        found = inspect_package(single)
        assert (found.parameters, found.weight_bytes) == (4, {"float32": 16})
        assert found.size_bytes == single.stat().st_size

    @pytest.mark.parametrize("short", [1, 64, 10_000])
    def test_weights_that_are_cut_off(self, own_package: Path, short: int) -> None:
        weights = own_package / WEIGHTS
        # The file is padded to a multiple of 64.
        os.truncate(weights, weights.stat().st_size - 64 - short)
        assert "it was not copied completely" in refusal(own_package)


def first(model: Any, kind: str) -> Any:
    block = model.mlProgram.functions["main"].block_specializations["CoreML7"]
    return next(operation for operation in block.operations if operation.type == kind)


def set_offset(model: Any) -> None:
    first(model, COMPRESSED_OPERATION).attributes["indices"].blobFileValue.offset = 2**60


def set_dimension(model: Any) -> None:
    first(model, "linear").outputs[0].type.tensorType.dimensions[0].constant.size = 2**40


def set_product(model: Any) -> None:
    for dimension in first(model, "linear").outputs[0].type.tensorType.dimensions:
        dimension.constant.size = 2**30


def set_file(name: str) -> Callable[[Any], None]:
    def edit(model: Any) -> None:
        first(model, COMPRESSED_OPERATION).attributes["indices"].blobFileValue.fileName = name

    return edit


def set_type(model: Any) -> None:
    first(model, "linear").outputs[0].type.tensorType.dataType = 77


def take_nothing(model: Any) -> None:
    first(model, "linear").inputs["x"].arguments[0].name = "nothing"


def remove_operation(model: Any) -> None:
    block = model.mlProgram.functions["main"].block_specializations["CoreML7"]
    block.operations.remove(first(model, "linear"))


def remove_outputs(model: Any) -> None:
    del model.mlProgram.functions["main"].block_specializations["CoreML7"].outputs[:]


def rename_set(model: Any) -> None:
    model.mlProgram.functions["main"].opset = "CoreML99"


def remove_function(model: Any) -> None:
    del model.mlProgram.functions["main"]


def set_input_type(model: Any) -> None:
    model.description.input[0].type.multiArrayType.dataType = 7


class TestHostile:
    @pytest.mark.parametrize(
        ("edit", "expected"),
        [
            (set_offset, f"at {2**60} of weights/weight.bin, which has"),
            (set_dimension, f"a dimension of {2**40} cannot be"),
            (set_product, f"a tensor of the sizes ({2**30}, {2**30}, {2**30}) cannot be"),
            (set_file("@model_path/../../../../etc/passwd"), "which is not in the package"),
            (set_file("@model_path/weights/../weights/weight.bin"), "which is not in the package"),
            (set_file("/etc/passwd"), "which is not in the package; its weight files: weights/weight.bin"),
            (set_file("weights/weight.bin"), "which is not in the package"),
            (set_type, "elements of an unknown type, 77"),
            (take_nothing, "takes 'nothing', which nothing before it gives"),
            (remove_operation, "which nothing before it gives"),
            (remove_outputs, "gives nothing: it is cut off"),
            (rename_set, "no operations for its operation set 'CoreML99'"),
            (remove_function, "has no function 'main'"),
            (set_input_type, "an input or output is of an unknown type, 7"),
        ],
    )
    def test_what_cannot_be(self, own_package: Path, edit: Callable[[Any], None], expected: str) -> None:
        edit_specification(own_package, edit)
        assert expected in refusal(own_package)

    def test_what_it_says_of_itself_is_cut_short(self, own_package: Path) -> None:
        edit_specification(own_package, lambda m: setattr(m.description.metadata, "author", "a" * 10**6))
        assert inspect_package(own_package).author == "a" * 500

    @pytest.mark.parametrize(
        ("edit", "expected"),
        [
            (lambda model: name_operations(model, 1001), "kinds of operations are more than any model has"),
            (lambda model: setattr(first(model, "linear"), "type", "x" * 501), "more than 500 characters"),
        ],
    )
    def test_names_that_would_fill_a_database(
        self, own_package: Path, edit: Callable[[Any], None], expected: str
    ) -> None:
        edit_specification(own_package, edit)
        assert expected in refusal(own_package)

    @given(seed=st.integers(0, 2**32))
    @settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_bytes_that_changed_are_told_or_refused(self, own_package: Path, seed: int) -> None:
        chance, file = random.Random(seed), own_package / MODEL
        good = file.read_bytes()
        content = bytearray(good)
        for _ in range(chance.choice([1, 2, 8])):
            place = chance.randrange(len(content))
            content[place : place + chance.randrange(3)] = chance.randbytes(chance.randrange(3))
        file.write_bytes(content)
        with contextlib.suppress(PackageRefusedError):  # and nothing else
            json.dumps(inspect_package(own_package).as_dict())
        file.write_bytes(good)


def name_operations(model: Any, count: int) -> None:
    block = model.mlProgram.functions["main"].block_specializations["CoreML7"]
    for number in range(count):
        block.operations.add().type = f"operation_{number}"
