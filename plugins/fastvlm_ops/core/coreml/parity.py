"""How close a model's outputs are to the golden ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastvlm_ops.core.coreml.errors import GoldenError

# Identical outputs have no noise to put into a ratio; two fp32 computations of the same reach some 145 dB.
IDENTICAL_DB = 200.0


@dataclass(frozen=True)
class Parity:
    """How close outputs are. Of several outputs each figure is the worst one.

    :param psnr_db: peak signal to noise ratio in decibels, 0 to 200: 200 where all is identical, 0 where an
        output is missing or has a value that is not finite, so that it is never taken for a good one
    :param cosine: similarity of the directions, -1 to 1; 0 where ``psnr_db`` is 0 for that reason
    :param max_abs: largest difference of two finite values
    :param argmax_agree: share of positions whose largest value is at the same place of the last axis; None
        where no output has a choice there
    :param nan: values that are no number
    :param inf: values that are infinite
    :param missing: outputs that are not there, or have another shape, with what is wrong
    :param worst_output: which output gave ``psnr_db``
    """

    psnr_db: float
    cosine: float
    max_abs: float
    argmax_agree: float | None
    nan: int
    inf: int
    missing: tuple[str, ...] = ()
    worst_output: str = ""

    @property
    def finite(self) -> bool:
        """Whether every value is a finite number."""
        return not self.nan and not self.inf

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {**asdict(self), "missing": list(self.missing)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Parity:
        """From JSON."""
        return cls(**{**values, "missing": tuple(values["missing"])})


def compare_outputs(reference: Mapping[str, NDArray[Any]], found: Mapping[str, NDArray[Any]]) -> Parity:
    """Compare outputs with the golden ones.

    :param reference: golden outputs by name; all values are finite
    :param found: outputs by name; those that the reference lacks are not looked at
    :raises GoldenError: the reference has no output, or one that is not finite
    """
    if not reference:
        raise GoldenError("there is no golden output to compare with")
    parts, missing = [], []
    for name, wanted in reference.items():
        if not np.all(np.isfinite(wanted)):
            raise GoldenError(f"golden output {name!r} has values that are not finite")
        if name not in found:
            missing.append(f"{name}: not among the outputs")
        elif found[name].shape != wanted.shape:
            missing.append(f"{name}: has the shape {found[name].shape}, not {wanted.shape}")
        else:
            parts.append(_compare(name, np.asarray(wanted), np.asarray(found[name])))
    agreeing = [part.argmax_agree for part in parts if part.argmax_agree is not None]
    worst = min(parts, key=lambda part: part.psnr_db, default=None)
    return Parity(
        psnr_db=0.0 if missing or worst is None else worst.psnr_db,
        cosine=0.0 if missing else min(part.cosine for part in parts),
        max_abs=max((part.max_abs for part in parts), default=0.0),
        argmax_agree=min(agreeing, default=None) if not missing else 0.0,
        nan=sum(part.nan for part in parts),
        inf=sum(part.inf for part in parts),
        missing=tuple(missing),
        worst_output=missing[0].partition(":")[0] if missing or worst is None else worst.worst_output,
    )


def _compare(name: str, reference: NDArray[Any], found: NDArray[Any]) -> Parity:
    wanted, given = reference.astype(np.float64), found.astype(np.float64)
    nan, inf = int(np.isnan(given).sum()), int(np.isinf(given).sum())
    finite = np.isfinite(given)
    difference = np.abs(wanted - given, where=finite, out=np.zeros_like(wanted))
    return Parity(
        psnr_db=0.0 if nan or inf else _psnr(wanted, difference),
        cosine=0.0 if nan or inf else _cosine(wanted, given),
        max_abs=float(difference.max(initial=0.0)),
        argmax_agree=_agreement(wanted, given, finite),
        nan=nan,
        inf=inf,
        worst_output=name,
    )


def _psnr(wanted: NDArray[np.float64], difference: NDArray[np.float64]) -> float:
    noise = float(np.mean(np.square(difference))) if difference.size else 0.0
    if noise == 0:
        return IDENTICAL_DB
    peak = float(np.abs(wanted).max())
    if peak == 0:
        return 0.0
    return float(np.clip(10 * (2 * np.log10(peak) - np.log10(noise)), 0.0, IDENTICAL_DB))


def _cosine(wanted: NDArray[np.float64], given: NDArray[np.float64]) -> float:
    lengths = float(np.linalg.norm(wanted)), float(np.linalg.norm(given))
    if not all(lengths):
        return 1.0 if not any(lengths) else 0.0
    # Divided first, since the product of two large outputs need not be finite.
    return float(np.clip(np.vdot(wanted / lengths[0], given / lengths[1]), -1.0, 1.0))


def _agreement(
    wanted: NDArray[np.float64], given: NDArray[np.float64], finite: NDArray[np.bool_]
) -> float | None:
    if wanted.ndim == 0 or wanted.shape[-1] < 2 or wanted.size == 0:
        return None
    same = wanted.argmax(-1) == np.where(finite, given, -np.inf).argmax(-1)
    return float(np.mean(same & finite.all(-1)))
