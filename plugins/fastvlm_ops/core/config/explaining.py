"""Turns pydantic's validation errors into sentences for the person who edits the file.

What would be right is taken from the model's own JSON schema, so a field's description is written once.
"""

from __future__ import annotations

import difflib
from typing import Any

from pydantic_core import ErrorDetails

Schema = dict[str, Any]
Location = tuple[str | int, ...]


def explain(error: ErrorDetails, schema: Schema, data: object) -> tuple[Location, str]:
    """Explain one error.

    :param error: from pydantic
    :param schema: JSON schema of the whole file
    :param data: the whole file as read
    :returns: where it is in the file, and what is wrong with what would be right
    """
    location = _location_in_file(error, data)
    parent, here = _schemas_at(schema, error["loc"])
    return location, _message(error, parent, here, location)


def _location_in_file(error: ErrorDetails, data: object) -> Location:
    """Leave out the tags that pydantic puts into a location for the variants of a union."""
    location: list[str | int] = []
    parts = error["loc"]
    for position, part in enumerate(parts):
        missing = error["type"] == "missing" and position == len(parts) - 1
        if isinstance(data, dict):
            if part not in data and not missing:
                continue
            data = data.get(part)
        elif isinstance(data, list) and isinstance(part, int):
            data = data[part]
        location.append(part)
    if error["type"] in {"union_tag_invalid", "union_tag_not_found"}:
        location.append(str(error["ctx"]["discriminator"]).strip("'"))
    return tuple(location)


def _schemas_at(schema: Schema, location: Location) -> tuple[Schema, Schema]:
    """Return the JSON schemas of a location's parent and of the location itself (empty where unknown)."""

    def resolve(node: Schema) -> Schema:
        reference = node.get("$ref")
        if not isinstance(reference, str):
            return node
        target: Schema = schema["$defs"][reference.rsplit("/", 1)[-1]]
        return {**target, **{key: value for key, value in node.items() if key != "$ref"}}

    parent, here = {}, resolve(schema)
    for part in location:
        variants: dict[str, str] = here.get("discriminator", {}).get("mapping", {})
        if isinstance(part, int):
            parent, here = here, resolve(here.get("items", {}))
        elif part in variants:
            parent, here = here, resolve({"$ref": variants[part]})
        else:
            parent, here = here, resolve(here.get("properties", {}).get(part, {}))
    return parent, here


def _message(error: ErrorDetails, parent: Schema, here: Schema, location: Location) -> str:
    kind, value, context = error["type"], error["input"], error.get("ctx", {})
    expected = f"; expected: {here['description']}" if here.get("description") else ""
    if kind == "missing":
        return f"is missing{expected}"
    if kind == "extra_forbidden":
        return _unknown_key(str(location[-1]), list(parent.get("properties", {})))
    if kind == "union_tag_not_found":
        return f"is missing; expected one of {', '.join(here['discriminator']['mapping'])}"
    if kind == "union_tag_invalid":
        return f"{context['tag']!r} is not known; expected one of {context['expected_tags']}"
    if kind == "literal_error":
        return f"{value!r} is not allowed; expected {context['expected']}"
    if kind == "too_short" and not value:
        return f"the list is empty{expected}"
    if kind == "value_error":
        return f"{context['error']}"
    if kind in {"string_type", "list_type", "tuple_type", "int_type", "bool_type"}:
        quotes = (
            "; put it in quotes" if kind == "string_type" and isinstance(value, bool | int | float) else ""
        )
        noun = {"string": "text", "list": "a list", "tuple": "a list", "int": "a whole number"}
        wanted = noun.get(kind.removesuffix("_type"), "true or false")
        return f"{value!r} is not {wanted}{quotes}{expected}"
    if kind in {"model_type", "model_attributes_type", "dict_type"}:
        return f"{value!r} is not a mapping{expected}"
    return f"{value!r} is not allowed: {error['msg']}{expected}"


def _unknown_key(key: str, known: list[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1)
    meant = f" Did you mean {close[0]!r}?" if close else ""
    return f"is not a known key; known here: {', '.join(known)}.{meant}"
