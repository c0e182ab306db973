"""Errors of the Core ML domain. It imports nothing, so that operators may name them at parse."""

from __future__ import annotations


class CoreMLError(Exception):
    """Base of this domain's errors."""

    retryable = False


class PackageRefusedError(CoreMLError):
    """A package is broken, hostile or of a kind that is not known.

    :param path: the package, as it was given
    :param reason: what is wrong, and what would be right
    """

    def __init__(self, path: object, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = str(path)
        self.reason = reason


class GoldenError(CoreMLError):
    """Golden inputs or outputs are missing, damaged, or do not fit the model."""


class UnsupportedOperationError(CoreMLError):
    """The reference cannot run a model: it has operations, or forms of them, that are not translated.

    :param operations: what is missing, as in ``scaled_dot_product_attention (ios18)``
    """

    def __init__(self, operations: tuple[str, ...]) -> None:
        super().__init__(f"not translated: {', '.join(operations)}")
        self.operations = operations
