"""include/coreml.yaml: what it accepts, and what it says to the person who got it wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastvlm_ops.core.config import CoreMLDefinitions, DefinitionError, ModelDefinition, load_coreml

ROOT = Path(__file__).parents[4]
MODELS = "models:\n  - {name: Encoder, path: 'models/Encoder-v{version}.mlpackage'}\n"
DEVICES = "devices:\n  - {name: linux-reference, backend: linux-reference}\n"
GOOD = f"version: 1\n{MODELS}{DEVICES}"


def load(folder: Path, text: str) -> CoreMLDefinitions:
    (folder / "coreml.yaml").write_text(text, encoding="utf-8")
    return load_coreml(folder)


def refusal(folder: Path, text: str) -> str:
    with pytest.raises(DefinitionError) as caught:
        load(folder, text)
    return str(caught.value)


def test_defaults(tmp_path: Path) -> None:
    definitions = load(tmp_path, GOOD)
    assert definitions.model("Encoder").compute_units == ("ALL",)
    assert definitions.device("linux-reference").queue is None
    assert (definitions.sessions.count, definitions.sessions.max_rerun) == (12, 12)
    assert (definitions.compare.baseline_sessions, definitions.compare.minimum_effect) == (40, 0.03)
    assert definitions.conditions.worst_thermal == "fair"
    assert definitions.missing_devices == "fail"


def test_the_shipped_file_is_of_the_demo_kit_and_states_the_defaults(tmp_path: Path) -> None:
    shipped, defaults = load_coreml(ROOT / "include"), load(tmp_path, GOOD)
    assert [model.name for model in shipped.models] == ["FastVLMVision", "FastVLMLanguage"]
    assert [device.backend for device in shipped.devices] == ["linux-reference"]
    for part in ("sessions", "conditions", "compare", "missing_devices"):
        assert getattr(shipped, part) == getattr(defaults, part)


def test_the_shipped_examples_of_apple_devices_are_right_once_turned_on(tmp_path: Path) -> None:
    text = (ROOT / "include" / "coreml.yaml").read_text()
    for line in (
        "- name: iphone",
        "  backend: c",
        "  connection:",
        "  queue:",
        "- name: mac",
        "  backend: l",
    ):
        text = text.replace(f"  # {line}", f"  {line}")
    text = text.replace("  #   compute_units", "    compute_units")
    assert [device.name for device in load(tmp_path, text).devices] == [
        "linux-reference",
        "iphone-15-pro",
        "mac-mini",
    ]


def test_a_device_narrows_the_compute_units_of_models(tmp_path: Path) -> None:
    definitions = load(
        tmp_path,
        "version: 1\nmodels:\n"
        "  - {name: A, path: 'A-{version}.mlpackage', compute_units: [CPU_AND_NE, ALL, CPU_ONLY]}\n"
        "  - {name: B, path: 'B-{version}.mlpackage', compute_units: [CPU_AND_GPU]}\n"
        "devices:\n"
        "  - {name: all, backend: local-mac}\n"
        "  - {name: few, backend: local-mac, queue: mac, compute_units: [CPU_ONLY, CPU_AND_NE]}\n",
    )
    first, second = definitions.models
    every, few = definitions.devices
    assert definitions.units_of(first, every) == ("CPU_AND_NE", "ALL", "CPU_ONLY")
    assert definitions.units_of(first, few) == ("CPU_AND_NE", "CPU_ONLY")
    assert definitions.units_of(second, few) == ()


def test_a_device_may_wait_longer_or_not_at_all_before_each_session(tmp_path: Path) -> None:
    devices = (
        "devices:\n  - {name: phone, backend: local-mac}\n"
        "  - {name: cool, backend: local-mac, cooldown_seconds: 0}\n"
    )
    definitions = load(
        tmp_path, f"version: 1\n{MODELS}{devices}sessions: {{count: 3, cooldown_seconds: 20}}\n"
    )
    rules = [definitions.sessions_on(device) for device in definitions.devices]
    assert [one.cooldown_seconds for one in rules] == [20, 0]
    assert [one.count for one in rules] == [3, 3]


@pytest.mark.parametrize(
    ("golden", "expected"),
    [
        (None, "/kit/models/Encoder.golden"),
        ("golden/Encoder", "/kit/golden/Encoder"),
        ("golden/{version}/Encoder", "/kit/golden/3/Encoder"),
        ("/srv/golden", "/srv/golden"),
    ],
)
def test_where_golden_outputs_are(golden: str | None, expected: str) -> None:
    model = ModelDefinition(name="Encoder", path="models/Encoder-v{version}.mlpackage", golden=golden)
    folder = model.golden_folder(Path("/kit/models/Encoder-v3.mlpackage"), "3", Path("/kit"))
    assert folder == Path(expected)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("{name: A, path: A.mlpackage}", "models[0].path: 'A.mlpackage' has to have {version} once"),
        ("{name: A, path: '{version}/{version}.mlpackage'}", "has to have {version} once"),
        ("{name: A, path: 'A-{version}.mlmodelc'}", "is no package; expected a path that ends in .mlpackage"),
        ("{name: A, path: '../A-{version}.mlpackage'}", "leaves kit_dir"),
        ("{name: A, path: '~/A-{version}.mlpackage'}", "'~' is not expanded"),
        ("{name: A, path: 'A*-{version}.mlpackage'}", "nothing but {version} is replaced"),
        ("{name: A/B, path: 'A-{version}.mlpackage'}", "models[0].name: 'A/B' cannot be a name"),
        ('{name: "A\\n", path: "A-{version}.mlpackage"}', "models[0].name: 'A\\n' cannot be a name"),
        ("{name: A, path: 'A-{version}.mlpackage', compute_units: []}", "compute_units: the list is empty"),
        (
            "{name: A, path: 'A-{version}.mlpackage', compute_units: [NE]}",
            "'NE' is not allowed; expected 'ALL'",
        ),
        ("{name: A, path: 'A-{version}.mlpackage', compute_units: [ALL, ALL]}", "ALL stands 2 times"),
        ("{name: A, path: 'A-{version}.mlpackage', golden: '{version}{version}'}", "more than once"),
        (
            "{name: A, path: 'A-{version}.mlpackage', golden: ../golden}",
            "models[0].golden: '../golden' leaves",
        ),
        ("{name: A, path: 'A-{version}.mlpackage', unit: [ALL]}", "models[0].unit: is not a known key"),
    ],
)
def test_what_is_wrong_with_a_model_is_named(tmp_path: Path, model: str, expected: str) -> None:
    assert expected in refusal(tmp_path, f"version: 1\nmodels:\n  - {model}\n{DEVICES}")


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        ("{name: Phone 1, backend: local-mac}", "devices[0].name: 'Phone 1' cannot be a name"),
        ("{name: phone, backend: adb}", "devices[0].backend: 'adb' is not allowed"),
        ("{name: phone, backend: connected-device}", "a connected-device needs the key connection"),
        ("{name: mac, backend: local-mac, connection: a}", "local-mac is reached without a connection"),
        ("{name: p, backend: connected-device, connection: a;b}", "'a;b' cannot be the id of a connection"),
        ("{name: mac, backend: local-mac, queue: 'a b'}", "devices[0].queue: 'a b' cannot be a name"),
        ("{name: mac, backend: local-mac, executor: ''}", "devices[0].executor: '' cannot be a name"),
        (
            "{name: mac, backend: local-mac, compute_units: [CPU_ONLY]}",
            "shares no compute unit with any model",
        ),
        ("{name: mac, backend: local-mac, compute_units: []}", "compute_units: the list is empty"),
    ],
)
def test_what_is_wrong_with_a_device_is_named(tmp_path: Path, device: str, expected: str) -> None:
    assert expected in refusal(tmp_path, f"version: 1\n{MODELS}devices:\n  - {device}\n")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sessions: {count: 0}\n", "sessions.count: 0 is not allowed"),
        ("sessions: {cooldown_seconds: .nan}\n", "sessions.cooldown_seconds: nan is not allowed"),
        (
            "sessions: {timeout_seconds: 60}\n",
            "sessions: answer_timeout_seconds 120 is above timeout_seconds 60",
        ),
        ("conditions: {worst_thermal: warm}\n", "conditions.worst_thermal: 'warm' is not allowed"),
        ("compare: {minimum_effect: 3}\n", "compare.minimum_effect: 3 is not allowed"),
        ("compare: {p_value: 0}\n", "compare.p_value: 0 is not allowed"),
        ("compare: {p_valu: 0.1}\n", "Did you mean 'p_value'?"),
        ("missing_devices: ignore\n", "missing_devices: 'ignore' is not allowed"),
    ],
)
def test_what_is_wrong_with_the_rules_is_named(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in refusal(tmp_path, GOOD + text)


@pytest.mark.parametrize(
    ("more", "key"),
    [
        (MODELS.replace("Encoder,", "encoder,").removeprefix("models:\n"), "models"),
        (DEVICES.removeprefix("devices:\n"), "devices"),
    ],
)
def test_a_name_stands_once(tmp_path: Path, more: str, key: str) -> None:
    text = GOOD.replace(MODELS, MODELS + more) if key == "models" else GOOD + more
    assert f"{key}: 2 are named" in refusal(tmp_path, text)


def test_what_the_file_lacks_is_named_with_what_it_has(tmp_path: Path) -> None:
    definitions = load(tmp_path, GOOD)
    with pytest.raises(DefinitionError, match=r"coreml\.yaml: models: has none named 'X'; it has Encoder"):
        definitions.model("X")
    with pytest.raises(DefinitionError, match=r"devices: has none named 'X'; it has linux-reference"):
        definitions.device("X")
