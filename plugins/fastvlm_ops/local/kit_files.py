"""The kit's small files: configuration, and what users sent. The same seed gives the same files."""

from __future__ import annotations

import errno
import json
import os
import random
from pathlib import Path
from typing import Any

import yaml

_DEVICES = ("iPhone15,2", "iPhone16,1", "iPhone17,3", "iPad14,5", "Mac14,7", "Mac15,6")
_SYSTEMS = ("17.4", "17.6", "18.1", "18.5", "19.0")
_LANGUAGES = ("en", "de", "fr", "es", "ja", "ko", "pt", "zh")
_TASKS = ("caption", "question", "ocr", "detection", "summary")
_SERVICES = ("gateway", "model-registry", "telemetry", "moderation", "scheduler", "feature-flags")
_STAGES = ("development", "staging", "production")
# Configuration that holds keys is for its owner only, and so on.
_MODES = (0o644, 0o644, 0o644, 0o640, 0o600, 0o664)
_LAST_CHANGE = 1_767_225_600  # 2026-01-01, seconds since 1970; files are up to a year older


def build_configuration(folder: Path, *, seed: int) -> None:
    """Write some 300 nested YAML and JSON files.

    :param folder: that is made
    :param seed: of what is in them
    """
    chance = random.Random(f"configuration {seed}")  # noqa: S311 - not for secrets
    for device in _DEVICES:
        for system in _SYSTEMS:
            for version in (1, 2):
                name = f"devices/{device.replace(',', '-')}/ios-{system}/vision-v{version}.yaml"
                _write(folder / name, yaml.safe_dump(_profile(chance, device, system, version)), chance)
    for language in _LANGUAGES:
        for task in _TASKS:
            for size in ("short", "long", "strict"):
                _write(
                    folder / f"prompts/{language}/{task}-{size}.json", _json(_prompt(chance, task)), chance
                )
    for service in _SERVICES:
        for stage in _STAGES:
            for part in ("service", "limits", "alerts"):
                text = yaml.safe_dump(_service(chance, service, stage, part), sort_keys=False)
                _write(folder / f"services/{stage}/{service}/{part}.yaml", text, chance)
    for number in range(40):
        _write(folder / f"experiments/{number:03d}.json", _json(_experiment(chance, number)), chance)
    (folder / "services/production").chmod(0o750)
    (folder / "experiments/archive").mkdir()
    _settle_folders(folder, chance)


def evolve_configuration(folder: Path, *, seed: int) -> None:
    """Change it as a day does: some edits, some new files, some that go, one that gets another mode."""
    chance = random.Random(f"day 2 {seed}")  # noqa: S311 - not for secrets
    for file in chance.sample(sorted(folder.rglob("*.yaml")), 20):
        with file.open("a") as text:
            text.write(f"revision: {chance.randint(2, 99)}\n")
    for file in chance.sample(sorted(folder.glob("prompts/*/*.json")), 5):
        file.unlink()
    for number in range(40, 46):
        _write(folder / f"experiments/{number:03d}.json", _json(_experiment(chance, number)), chance)
    moved = folder / "experiments/000.json"
    moved.rename(folder / "experiments/archive/000.json")
    chance.choice(sorted(folder.glob("services/*/*/limits.yaml"))).chmod(0o400)


def build_uploads(folder: Path, *, seed: int) -> None:
    """Write plain files of all sizes, with links, modes and names that a backup must keep.

    :param folder: that is made
    :param seed: of what is in them
    """
    chance = random.Random(f"uploads {seed}")  # noqa: S311 - not for secrets
    for number in range(60):
        size = int(2 ** chance.uniform(6, 19))
        name = f"2026/{chance.randint(1, 12):02d}/{number:04d}.{chance.choice(('jpg', 'heic', 'png'))}"
        _write(folder / name, chance.randbytes(size), chance)
    _write(folder / "receipts/Rechnung März 2.pdf", chance.randbytes(40_000), chance)
    _write(folder / "empty.txt", b"", chance)
    tool = folder / "tools/convert.sh"
    _write(tool, b"#!/bin/sh\nexec cat\n", chance)
    tool.chmod(0o755)
    (folder / "incoming").mkdir(mode=0o700)
    (folder / "latest").symlink_to("2026")
    (folder / "gone").symlink_to("2025/no longer there.jpg")
    os.link(folder / "empty.txt", folder / "also-empty.txt")
    _label(folder / "receipts/Rechnung März 2.pdf")
    _settle_folders(folder, chance)


def evolve_uploads(folder: Path, *, seed: int) -> None:
    """Add some files, remove some, and point the link elsewhere."""
    chance = random.Random(f"day 2 {seed}")  # noqa: S311 - not for secrets
    for number in range(60, 70):
        _write(folder / f"2026/12/{number:04d}.jpg", chance.randbytes(chance.randint(1_000, 200_000)), chance)
    for file in chance.sample(sorted(folder.glob("2026/*/00[0-4]*")), 4):
        file.unlink()
    (folder / "latest").unlink()
    (folder / "latest").symlink_to("2026/12")


def _profile(chance: random.Random, device: str, system: str, version: int) -> dict[str, Any]:
    return {
        "device": device,
        "os": {"minimum": system, "tested": sorted(chance.sample(_SYSTEMS, 2))},
        "model": {
            "package": f"FastVLMVision-v{version}.mlpackage",
            "compute_units": chance.choice(("all", "cpu_and_neural_engine", "cpu_and_gpu")),
            "input": {"height": 256, "width": 256, "tiles": chance.choice((1, 4, 9))},
        },
        "budgets": {
            "time_to_first_token_ms": chance.randint(90, 420),
            "memory_mib": chance.choice((350, 500, 750)),
            "energy_mj_per_token": round(chance.uniform(0.4, 3.0), 2),
        },
        "fallbacks": [{"when": "thermal_state > serious", "tiles": 1}, {"when": "low_power", "model": "v1"}],
    }


def _prompt(chance: random.Random, task: str) -> dict[str, Any]:
    return {
        "task": task,
        "template": ["<image>", f"Answer the {task} in {chance.randint(5, 80)} words.", "{{ question }}"],
        "sampling": {
            "temperature": round(chance.uniform(0, 1), 2),
            "top_p": 0.95,
            "max_tokens": chance.choice((64, 128, 256)),
        },
        "stop": ["</s>"],
        "owners": chance.sample(("ana", "bo", "chi", "dev", "eli"), 2),
    }


def _service(chance: random.Random, service: str, stage: str, part: str) -> dict[str, Any]:
    if part == "limits":
        return {
            "cpu": chance.choice((1, 2, 4)),
            "memory_gib": chance.choice((2, 4, 8)),
            "replicas": {"min": 1},
        }
    if part == "alerts":
        pairs = (
            ("latency_p95_ms", chance.randint(100, 900)),
            ("error_ratio", round(chance.random() / 50, 4)),
        )
        return {"rules": [{"metric": name, "above": limit, "for_minutes": 5} for name, limit in pairs]}
    return {
        "name": service,
        "stage": stage,
        "listen": {"port": chance.randint(8000, 8999), "tls": stage != "development"},
        "routes": [{"path": f"/v1/{task}", "timeout_ms": chance.randint(500, 5000)} for task in _TASKS],
        "features": {name: chance.random() < 0.5 for name in ("streaming", "tiling", "cache", "shadow")},
    }


def _experiment(chance: random.Random, number: int) -> dict[str, Any]:
    arms = [{"model": f"FastVLMVision-v{version}", "share": 0.5} for version in (1, 2)]
    return {
        "id": number,
        "arms": arms,
        "salt": f"{chance.getrandbits(64):016x}",
        "seeds": chance.sample(range(999), 8),
    }


def _json(content: object) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _write(file: Path, content: str | bytes, chance: random.Random) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    file.chmod(chance.choice(_MODES))
    _age(file, chance)


def _age(path: Path, chance: random.Random) -> None:
    moment = _LAST_CHANGE * 10**9 - chance.randrange(365 * 86_400 * 10**9)
    os.utime(path, ns=(moment, moment), follow_symlinks=False)


def _settle_folders(folder: Path, chance: random.Random) -> None:
    """Give folders and links their times, last, since what is put into a folder changes its own."""
    for parent, folders, files in os.walk(folder, topdown=False):
        for name in sorted([*folders, *files]):
            path = Path(parent, name)
            if path.is_symlink() or path.is_dir():
                _age(path, chance)


def _label(file: Path) -> None:
    try:
        os.setxattr(file, "user.origin", b"scanner")
    except OSError as error:
        if error.errno != errno.ENOTSUP:  # not every file system keeps them
            raise
