"""Golden outputs by one command: from the original, or from what it gave; never over others by accident."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from fastvlm_ops.cli import main
from fastvlm_ops.core.coreml.arrays import write_arrays
from fastvlm_ops.core.coreml.golden import load_golden
from fastvlm_ops.core.coreml.packages import digest
from fastvlm_ops.core.coreml.parity import compare_outputs
from fastvlm_ops.core.coreml.reference.model import ReferenceModel
from fastvlm_ops.local.coreml_models import build_golden, example_inputs
from tests.coreml_kit import Build, coreml_package  # noqa: F401 - a fixture


@pytest.fixture
def original(coreml_package: Build) -> Path:  # noqa: F811
    return coreml_package("TextDecoder", "original")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "TextDecoder.golden"


def make(*arguments: object) -> int:
    return main(["make-golden", "TextDecoder", *map(str, arguments)])


def test_from_the_original(original: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert make("--from", original, "--into", folder) == 0
    golden = load_golden(folder)
    said = capsys.readouterr().out
    assert said.startswith(
        f"{folder}: golden outputs {golden.id} of TextDecoder, made by linux-reference fp32"
    )
    assert golden.made_from_digest == digest(original)
    again = ReferenceModel(original).predict(golden.read_inputs())
    assert compare_outputs(golden.read_outputs(), again).psnr_db > 140


def test_made_up_inputs_are_the_same_ones_every_time(original: Path, tmp_path: Path) -> None:
    for name in ("one", "other"):
        assert make("--from", original, "--into", tmp_path / name) == 0
    one, other = (load_golden(tmp_path / name).inputs.read_bytes() for name in ("one", "other"))
    assert one == other


def test_of_given_inputs(original: Path, folder: Path, tmp_path: Path) -> None:
    write_arrays(tmp_path / "in.npz", example_inputs("TextDecoder", seed=9))
    assert make("--from", original, "--into", folder, "--inputs", tmp_path / "in.npz") == 0
    read = load_golden(folder).read_inputs()
    np.testing.assert_array_equal(read["tokens"], example_inputs("TextDecoder", seed=9)["tokens"])


def test_of_outputs_that_something_else_computed(folder: Path, tmp_path: Path) -> None:
    write_arrays(tmp_path / "in.npz", {"tokens": np.arange(4)})
    write_arrays(tmp_path / "torch.npz", {"logits": np.ones(4)})
    arguments = ("--into", folder, "--inputs", tmp_path / "in.npz", "--outputs", tmp_path / "torch.npz")
    assert make(*arguments) == 0
    golden = load_golden(folder)
    assert (golden.made_by, golden.made_from_digest) == ("given: torch.npz", "")
    np.testing.assert_array_equal(golden.read_outputs()["logits"], np.ones(4))


def test_others_are_replaced_only_when_told(
    original: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build_golden(folder, "TextDecoder", seed=2)
    before = load_golden(folder)
    assert make("--from", original, "--into", folder) == 1
    assert "has golden outputs already" in capsys.readouterr().err
    assert load_golden(folder) == before
    assert make("--from", original, "--into", folder, "--replace") == 0
    assert load_golden(folder).id != before.id


def test_where_coreml_yaml_says(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = {"name": "TextDecoder", "path": "TextDecoder-v{version}.mlpackage"}
    devices = [{"name": "linux-reference", "backend": "linux-reference"}]
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "TextDecoder-v1.mlpackage").mkdir()
    monkeypatch.setenv("AIRFLOW__FASTVLM_OPS__INCLUDE_DIR", str(tmp_path))
    monkeypatch.setenv("AIRFLOW__FASTVLM_OPS__KIT_DIR", str(tmp_path / "models"))

    def define(**more: Any) -> None:
        content = {"version": 1, "models": [model | more], "devices": devices}
        (tmp_path / "coreml.yaml").write_text(yaml.safe_dump(content))

    define()
    assert make("--from", original) == 0
    assert load_golden(tmp_path / "models" / "TextDecoder.golden").model == "TextDecoder"
    define(golden="elsewhere/{version}")
    assert make("--from", original) == 0
    assert load_golden(tmp_path / "models" / "elsewhere" / "1").model == "TextDecoder"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "give --from, or --inputs and --outputs"),
        (("--from", "absent.mlpackage"), "absent.mlpackage: cannot be read: No such file"),
        (("--from", "absent.mlpackage", "--outputs", "out.npz"), "one of the two"),
        (("--outputs", "out.npz"), "or --inputs and --outputs"),
        (("--outputs", "out.npz", "--inputs", "in.npz"), "in.npz: is no file of arrays"),
    ],
)
def test_what_is_wrong_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    assert make("--into", tmp_path / "golden", *arguments) == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "golden").exists()


def test_inputs_that_do_not_fit(
    original: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_arrays(tmp_path / "in.npz", {"images": np.ones(3)})
    assert make("--from", original, "--into", folder, "--inputs", tmp_path / "in.npz") == 1
    assert "inputs images are given, expected tokens" in capsys.readouterr().err


def test_a_model_that_coreml_yaml_lacks(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AIRFLOW__FASTVLM_OPS__INCLUDE_DIR", str(Path(__file__).parents[3] / "include"))
    monkeypatch.setenv("AIRFLOW__FASTVLM_OPS__KIT_DIR", str(tmp_path))
    assert make("--from", original) == 1
    assert "has none named 'TextDecoder'; it has FastVLMVision" in capsys.readouterr().err
    assert main(["make-golden", "FastVLMVision", "--from", str(original)]) == 1
    assert "there is no package at models/FastVLMVision-v{version}.mlpackage" in capsys.readouterr().err
