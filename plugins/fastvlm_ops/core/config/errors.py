"""Errors of the definition files. Each names the file, the key and what would be right."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


class ConfigError(Exception):
    """Something that a person configured is wrong."""

    retryable = False  # until that person has changed it


@dataclass(frozen=True)
class Problem:
    """One thing wrong in a definition file.

    :param key: where, as in ``components[2].path``; empty for the file as a whole
    :param message: what is wrong and what would be right
    :param line: line in the file, from 1; None where it cannot be told
    """

    key: str
    message: str
    line: int | None = None

    def __str__(self) -> str:
        where = [f"line {self.line}"] if self.line is not None else []
        if self.key:
            where.append(self.key)
        return f"{', '.join(where)}: {self.message}" if where else self.message


class DefinitionError(ConfigError):
    """A definition file cannot be used.

    :param file: the file
    :param problems: what is wrong in it, at least one
    """

    def __init__(self, file: Path, problems: list[Problem]) -> None:
        self.file = file
        self.problems = problems
        super().__init__(file, problems)

    def __str__(self) -> str:
        if len(self.problems) == 1:
            return f"{self.file}: {self.problems[0]}"
        lines = "".join(f"\n  {problem}" for problem in self.problems)
        return f"{self.file} has {len(self.problems)} problems:{lines}"
