"""Who translates which operation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module

from fastvlm_ops.core.coreml.reference.call import Call

Translator = Callable[[Call], str | Sequence[str]]

_FAMILIES = (
    "activations",
    "compression",
    "control",
    "convolution",
    "elementwise",
    "indexing",
    "linear",
    "normalisation",
    "pooling",
    "recurrent",
    "reductions",
    "resizing",
    "shapes",
    "slicing",
    "states",
)
_translators: dict[str, Translator] = {}


def translates(*kinds: str) -> Callable[[Translator], Translator]:
    """Mark a function as the one that translates operations of these kinds.

    It gets the call and returns the name of the tensor that is its output, or of all that are.
    """

    def register(function: Translator) -> Translator:
        for kind in kinds:
            _translators[kind] = function
        return function

    return register


@cache
def translators() -> dict[str, Translator]:
    """All operations that are translated, and by what."""
    for family in _FAMILIES:
        import_module(f"fastvlm_ops.core.coreml.reference.{family}")
    return _translators
