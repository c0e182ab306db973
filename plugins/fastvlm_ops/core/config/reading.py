"""Reads a definition file into its model, or says in plain words why not."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, PrivateAttr, ValidationError

from fastvlm_ops.core.config.errors import DefinitionError, Problem
from fastvlm_ops.core.config.explaining import explain

Location = tuple[str | int, ...]


class Definition(BaseModel):
    """Base of everything in a definition file: unknown keys and wrong types are refused.

    Built when first used: building those of all files takes as long as the rest of parsing a DAG.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, defer_build=True)


class DefinitionFile(Definition):
    """Base of the top level of a definition file; knows which file it was read from."""

    _file: Path = PrivateAttr(default=Path("(not read from a file)"))

    @property
    def file(self) -> Path:
        """The file that this was read from, for messages."""
        return self._file

    def read_from(self, file: Path) -> Self:
        """Note the file that this was read from.

        :param file: the file
        :returns: this object
        """
        self._file = file
        return self


FileT = TypeVar("FileT", bound=DefinitionFile)


def read_definition_file(path: Path, model: type[FileT]) -> FileT:
    """Read one YAML file.

    :param path: the file
    :param model: what its top level must be
    :returns: the checked contents
    :raises DefinitionError: the file cannot be read, is not YAML, or does not fit the model
    """
    text = _read_text(path)
    with _yaml_errors_explained(path):
        root = _compose(text)
    if root is None:
        raise DefinitionError(path, [Problem("", "is empty")])
    if duplicates := _duplicate_keys(root, (), set()):
        raise DefinitionError(path, duplicates)
    with _yaml_errors_explained(path):
        data = yaml.constructor.SafeConstructor().construct_document(root)
    if not isinstance(data, dict):
        known = ", ".join(model.model_fields)
        raise DefinitionError(path, [Problem("", f"must be a mapping with the keys {known}", _line(root))])
    try:
        return model.model_validate(data).read_from(path)
    except ValidationError as error:
        schema = model.model_json_schema()
        problems = []
        for detail in error.errors(include_url=False):
            if detail["type"] == "too_short" and detail["input"]:
                continue  # the list has items, but pydantic counts only the good ones
            location, message = explain(detail, schema, data)
            problems.append(Problem(key_path(location), message, _line_of(root, location)))
        raise DefinitionError(path, problems) from None


def key_path(location: Location) -> str:
    """Write a location the way people do.

    :param location: keys and positions from the top of the file
    :returns: for example ``components[2].path``
    """
    text = ""
    for part in location:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if text else part
    return text


def _compose(text: str) -> yaml.Node | None:
    """Return the nodes of a text: by libyaml, ten times as fast, where it is there; in plain Python where it
    is not, and where the text is broken, since that one says better why.
    """
    fast = getattr(yaml, "CSafeLoader", None)
    if fast is not None:
        with contextlib.suppress(yaml.YAMLError):
            node: yaml.Node | None = yaml.compose(text, Loader=fast)
            return node
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    return node


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DefinitionError(path, [Problem("", "does not exist")]) from None
    except UnicodeDecodeError as error:
        raise DefinitionError(path, [Problem("", f"is not UTF-8 text (byte {error.start})")]) from None
    except OSError as error:
        raise DefinitionError(path, [Problem("", f"cannot be read: {error.strerror}")]) from None


@contextmanager
def _yaml_errors_explained(path: Path) -> Iterator[None]:
    try:
        yield
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        message = f"is not valid YAML: {error.problem or error.context}"
        raise DefinitionError(path, [Problem("", message, mark.line + 1 if mark else None)]) from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: the 31st of June, for example
        raise DefinitionError(path, [Problem("", f"is not valid YAML: {error}")]) from None


def _duplicate_keys(node: yaml.Node, location: Location, seen: set[int]) -> list[Problem]:
    """Find keys that stand twice: YAML readers silently take the last one.

    :param node: where to look
    :param location: of that node
    :param seen: ids of nodes already looked at, since an alias may point to its own parent
    :returns: one problem for each
    """
    if id(node) in seen:
        return []
    seen.add(id(node))
    problems: list[Problem] = []
    if isinstance(node, yaml.MappingNode):
        keys: set[str] = set()
        for key_node, value in node.value:
            key = str(key_node.value)
            if key in keys:
                problems.append(Problem(key_path((*location, key)), "stands twice", _line(key_node)))
            keys.add(key)
            problems += _duplicate_keys(value, (*location, key), seen)
    elif isinstance(node, yaml.SequenceNode):
        for position, value in enumerate(node.value):
            problems += _duplicate_keys(value, (*location, position), seen)
    return problems


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _line_of(root: yaml.Node, location: Sequence[str | int]) -> int:
    """Return the line of the deepest part of a location that the file has."""
    node, line = root, _line(root)
    for part in location:
        found: Any = None
        if isinstance(node, yaml.MappingNode):
            found = next(((key, value) for key, value in node.value if key.value == part), None)
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            found = (node.value[part], node.value[part])
        if found is None:
            break
        line, node = _line(found[0]), found[1]
    return line
