"""Which operations of MIL the reference runs."""

from __future__ import annotations

from dataclasses import dataclass

from fastvlm_ops.core.coreml.reference.call import named_opset
from fastvlm_ops.core.coreml.reference.compression import DECOMPRESSED
from fastvlm_ops.core.coreml.reference.registry import translators
from fastvlm_ops.core.coreml.specification import quiet_coremltools

# What FastVLM's image encoder holds when it is converted: in single precision, in half precision, compressed.
FASTVLM = (
    "add",
    "avg_pool",
    "cast",
    "constexpr_affine_dequantize",
    "constexpr_blockwise_shift_scale",
    "constexpr_lut_to_dense",
    "constexpr_sparse_to_dense",
    "conv",
    "gelu",
    "linear",
    "matmul",
    "mul",
    "pow",
    "real_div",
    "reduce_mean",
    "relu",
    "reshape",
    "sigmoid",
    "softmax",
    "split",
    "sqrt",
    "squeeze",
    "sub",
    "transpose",
)
_BY_THE_TRANSLATION = ("const", "coreml_update_state", *DECOMPRESSED)
_INTERNAL = ("_const_symbolic",)  # of coremltools' own making, in no package


@dataclass(frozen=True)
class Covered:
    """An operation of MIL.

    :param name: of it
    :param since: the first opset that has it, as in ``iOS17``
    :param newest: the newest opset that changed it
    :param runs: whether the reference runs it
    :param in_fastvlm: whether FastVLM's image encoder has it
    """

    name: str
    since: str
    newest: str
    runs: bool
    in_fastvlm: bool


def coverage() -> list[Covered]:
    """All operations that coremltools knows, by name."""
    quiet_coremltools()
    from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry

    found = []
    for name, versions in sorted(SSAOpRegistry.core_ops.items()):
        if name in _INTERNAL:
            continue
        opsets = list(versions)
        changed = [
            opset
            for before, opset in zip([None, *opsets], opsets, strict=False)
            if before is None or versions[before] is not versions[opset]
        ]
        runs = name in translators() or name in _BY_THE_TRANSLATION
        found.append(Covered(name, named_opset(opsets[0]), named_opset(changed[-1]), runs, name in FASTVLM))
    return found


def coverage_table(operations: list[Covered]) -> str:
    """The same as a table of Markdown."""
    head = ["| operation | opset | FastVLM | runs |", "|---|---|---|---|"]
    rows = [
        f"| `{one.name}` | {one.since if one.since == one.newest else f'{one.since}, {one.newest}'} "
        f"| {'yes' if one.in_fastvlm else ''} | {'yes' if one.runs else 'no'} |"
        for one in operations
    ]
    return "\n".join([*head, *rows])
