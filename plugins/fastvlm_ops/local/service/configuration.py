"""The configuration of the demo service: two files, and the last good version of both."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError

from fastvlm_ops.core.config.errors import DefinitionError
from fastvlm_ops.core.config.reading import Definition, DefinitionFile, read_definition_file
from fastvlm_ops.local.service.model_package import PACKAGE, SCORES

SERVICE_FILE = "service.yaml"
MODELS_FILE = "models.json"


class ServiceSettings(DefinitionFile):
    """``service.yaml``."""

    version: Literal[1]
    max_characters: Annotated[int, Field(ge=1, le=100_000, description="longest text that is taken")]
    tags: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=40)], ...],
        Field(strict=False, min_length=SCORES, max_length=SCORES, description="what the scores stand for"),
    ]


class ModelSettings(Definition):
    """``models.json``."""

    version: Literal[1]
    serve: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+\.mlpackage$", description="package in the store")]


class Configuration(Definition):
    """Both files."""

    service: ServiceSettings
    models: ModelSettings


class ConfigurationError(Exception):
    """A file of the configuration is missing or broken."""


@dataclass(frozen=True)
class Current:
    """What a replica goes by.

    :param configuration: the newest good one; None where there never was one
    :param problem: why the files cannot be used now; None where they can
    """

    configuration: Configuration | None
    problem: str | None


class ConfigurationKeeper:
    """Reads the files when they change, and goes on with what was good before when they cannot be used.

    :param folder: of the files
    :param last_good: file that a good configuration is kept in, so that a restart finds it
    """

    def __init__(self, folder: Path, last_good: Path) -> None:
        self._folder = folder
        self._last_good = last_good
        self._signature: object = None
        self.current = Current(_read_kept(last_good), f"{SERVICE_FILE} was not read yet")

    def refresh(self) -> None:
        """Read the files, if they changed."""
        signature = tuple(_signature(self._folder / name) for name in (SERVICE_FILE, MODELS_FILE))
        if signature == self._signature:
            return
        try:
            configuration = read_configuration(self._folder)
        except ConfigurationError as error:
            self.current = Current(self.current.configuration, str(error))
        else:
            self.current = Current(configuration, None)
            _keep(self._last_good, configuration)
        self._signature = signature


def read_configuration(folder: Path) -> Configuration:
    """Read both files.

    :param folder: of them
    :raises ConfigurationError: one of them cannot be used
    """
    try:
        service = read_definition_file(folder / SERVICE_FILE, ServiceSettings)
    except DefinitionError as error:
        raise ConfigurationError(" ".join(str(error).split())) from None
    try:
        models = ModelSettings.model_validate_json((folder / MODELS_FILE).read_bytes())
    except OSError as error:
        raise ConfigurationError(f"{MODELS_FILE} cannot be read: {error.strerror}") from None
    except ValidationError as error:
        raise ConfigurationError(f"{MODELS_FILE} is not valid: {error.errors()[0]['msg']}") from None
    return Configuration(service=service, models=models)


def write_configuration(folder: Path) -> None:
    """Write the configuration that the service begins with.

    :param folder: that is made where absent
    """
    folder.mkdir(parents=True, exist_ok=True)
    tags = [
        "animal",
        "building",
        "chart",
        "child",
        "city",
        "document",
        "food",
        "forest",
        "indoor",
        "landscape",
    ]
    tags += ["night", "person", "screen", "sport", "vehicle", "water"]
    service: dict[str, Any] = {"version": 1, "max_characters": 2000, "tags": tags}
    (folder / SERVICE_FILE).write_text(yaml.safe_dump(service, sort_keys=False))
    (folder / MODELS_FILE).write_text(json.dumps({"version": 1, "serve": PACKAGE}, indent=1) + "\n")


def _signature(path: Path) -> tuple[int, ...] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def _read_kept(last_good: Path) -> Configuration | None:
    with contextlib.suppress(OSError, ValidationError):
        return Configuration.model_validate_json(last_good.read_bytes())
    return None


def _keep(last_good: Path, configuration: Configuration) -> None:
    last_good.parent.mkdir(parents=True, exist_ok=True)
    temporary = last_good.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(configuration.model_dump_json())
    temporary.replace(last_good)
