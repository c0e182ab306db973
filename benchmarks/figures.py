"""Figures of a benchmark: a value beside a peer's, and whether it is good enough."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Figure:
    """One thing that was measured.

    :param name: of it
    :param value: ours
    :param unit: of both values
    :param target: for the ratio of ours to the peer's; for ours alone where there is no peer
    :param peer: name and version of what was measured beside it, or why that could not be run; None where
        the target is an absolute one
    :param peer_value: theirs; None where it could not be run, and then the target is not met
    :param better: whether a lower or a higher value is better
    """

    name: str
    value: float
    unit: str
    target: float
    peer: str | None = None
    peer_value: float | None = None
    better: Literal["lower", "higher"] = "lower"

    @property
    def ratio(self) -> float | None:
        """Our value in parts of the peer's."""
        return self.value / self.peer_value if self.peer_value else None

    @property
    def met(self) -> bool:
        """Whether the target is reached."""
        reached = self.value if self.peer is None else self.ratio
        if reached is None:
            return False
        return reached <= self.target if self.better == "lower" else reached >= self.target

    @property
    def target_in_words(self) -> str:
        """As in ``≤ 0.65`` or ``≤ 256 MiB``."""
        sign = "≤" if self.better == "lower" else "≥"
        return f"{sign} {self.target:g}{f' {self.unit}' if self.peer is None else ''}"

    def as_dict(self) -> dict[str, Any]:
        """The figure as it stands in a file of results."""
        return {
            "name": self.name,
            "value": _rounded(self.value),
            "unit": self.unit,
            "peer": self.peer,
            "peer_value": _rounded(self.peer_value),
            "ratio": _rounded(self.ratio),
            "target": self.target,
            "better": self.better,
            "met": self.met,
        }


def write_figures(figures: Iterable[Figure], file: Path) -> None:
    """Write a file of results."""
    write_json([figure.as_dict() for figure in figures], file)


def write_json(content: Any, file: Path) -> None:
    """Write a JSON file; its folder is made."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def figures_table(figures: Sequence[Figure]) -> str:
    """The figures for people."""
    head = ("figure", "ours", "peer's", "ratio", "target", "")
    rows = [
        (
            figure.name,
            f"{figure.value:,.2f} {figure.unit}",
            "-" if figure.peer_value is None else f"{figure.peer_value:,.2f} {figure.unit}",
            "-" if figure.ratio is None else f"{figure.ratio:.2f}",
            figure.target_in_words,
            "met" if figure.met else "MISSED",
        )
        for figure in figures
    ]
    peers = sorted({figure.peer for figure in figures if figure.peer is not None})
    met = sum(figure.met for figure in figures)
    beside = f"Peer: {'; '.join(peers)}. " if peers else ""
    return f"{table([head, *rows])}\n{beside}{met} of {len(figures)} targets met."


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows as aligned columns, the first to the left and the others to the right; the first row is a head."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if number == 0 else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "-" * (sum(widths) + 2 * len(widths) - 2), *lines[1:]])


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Rows as a table of Markdown, the first column to the left and the others to the right; a head first."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    rule = f"|{'|'.join(['---', *['---:'] * (len(rows[0]) - 1)])}|"
    return "\n".join([lines[0], rule, *lines[1:]])


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
