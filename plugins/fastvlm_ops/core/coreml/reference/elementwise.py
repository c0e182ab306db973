"""Arithmetic, comparisons, logic and casts."""

from __future__ import annotations

from fastvlm_ops.core.coreml.reference.call import Call, Kind, kind_of
from fastvlm_ops.core.coreml.reference.registry import translates

_UNARY = {
    "abs": "Abs",
    "acos": "Acos",
    "asin": "Asin",
    "atan": "Atan",
    "atanh": "Atanh",
    "ceil": "Ceil",
    "cos": "Cos",
    "cosh": "Cosh",
    "erf": "Erf",
    "exp": "Exp",
    "floor": "Floor",
    "identity": "Identity",
    "round": "Round",
    "sign": "Sign",
    "sin": "Sin",
    "sinh": "Sinh",
    "sqrt": "Sqrt",
    "tan": "Tan",
    "tanh": "Tanh",
}
_BINARY = {"add": "Add", "maximum": "Max", "minimum": "Min", "mul": "Mul", "sub": "Sub"}
_COMPARISONS = {
    "equal": "Equal",
    "greater": "Greater",
    "greater_equal": "GreaterOrEqual",
    "less": "Less",
    "less_equal": "LessOrEqual",
}
_LOGIC = {"logical_and": "And", "logical_or": "Or", "logical_xor": "Xor"}
_NARROW_INTEGERS = {"int8": "INT8", "uint8": "UINT8", "int16": "INT16", "uint16": "UINT16", "int32": "INT32"}


@translates(*_UNARY)
def unary(call: Call) -> str:
    """Of one tensor, without more."""
    return call.emit(_UNARY[call.kind_name], call.tensor("x"))


@translates(*_BINARY)
def binary(call: Call) -> str:
    """Of two tensors, broadcast against each other."""
    x, y = _alike(call)
    return call.emit(_BINARY[call.kind_name], x, y)


@translates(*_COMPARISONS)
def comparison(call: Call) -> str:
    """True or false."""
    x, y = _alike(call)
    return call.emit(_COMPARISONS[call.kind_name], x, y)


@translates("not_equal")
def not_equal(call: Call) -> str:
    """ONNX has no operation for it."""
    return call.emit("Not", call.emit("Equal", *_alike(call)))


@translates(*_LOGIC)
def logic(call: Call) -> str:
    """Of two truths."""
    return call.emit(_LOGIC[call.kind_name], call.as_kind("x", Kind.BOOL), call.as_kind("y", Kind.BOOL))


@translates("logical_not")
def logical_not(call: Call) -> str:
    """Of one truth."""
    return call.emit("Not", call.as_kind("x", Kind.BOOL))


@translates("real_div")
def real_div(call: Call) -> str:
    """Whole numbers are divided as real ones, and cut off."""
    if kind_of(call.operation.outputs[0]) is Kind.FLOAT:
        return call.emit("Div", *_alike(call))
    quotient = call.emit("Div", call.as_kind("x", Kind.FLOAT), call.as_kind("y", Kind.FLOAT))
    return call.cast(quotient, Kind.INT)


@translates("floor_div")
def floor_div(call: Call) -> str:
    """Rounded down; ONNX rounds whole numbers to zero."""
    x, y = _alike(call)
    if kind_of(call.operation.outputs[0]) is Kind.FLOAT:
        return call.emit("Floor", call.emit("Div", x, y))
    return call.emit("Div", call.emit("Sub", x, call.emit("Mod", x, y)), y)


@translates("mod")
def mod(call: Call) -> str:
    """The rest has the divisor's sign."""
    x, y = _alike(call)
    if kind_of(call.operation.outputs[0]) is Kind.INT:
        return call.emit("Mod", x, y)
    whole = call.emit("Floor", call.emit("Div", x, y))
    return call.emit("Sub", x, call.emit("Mul", whole, y))


@translates("pow")
def power(call: Call) -> str:
    """A square is a product: ONNX Runtime's Pow is slower by far."""
    x, y = _alike(call)
    if call.is_constant("y") and call.variable("y").val.size == 1 and float(call.variable("y").val) == 2:
        return call.emit("Mul", x, x)
    return call.emit("Pow", x, y)


@translates("square")
def square(call: Call) -> str:
    """x · x."""
    x = call.tensor("x")
    return call.emit("Mul", x, x)


@translates("exp2")
def exp2(call: Call) -> str:
    """2 to the power of x."""
    x = call.tensor("x")
    return call.emit("Pow", call.constant(2.0 if call.kind("x") is Kind.FLOAT else 2), x)


@translates("inverse")
def inverse(call: Call) -> str:
    """1 / (x + epsilon)."""
    return call.emit("Reciprocal", _plus_epsilon(call, 1e-4))


@translates("rsqrt")
def rsqrt(call: Call) -> str:
    """1 / √(x + epsilon)."""
    return call.emit("Reciprocal", call.emit("Sqrt", _plus_epsilon(call, 1e-12)))


@translates("log")
def log(call: Call) -> str:
    """log(x + epsilon)."""
    return call.emit("Log", _plus_epsilon(call, 1e-45))


@translates("clip")
def clip(call: Call) -> str:
    """Between alpha and beta."""
    return call.emit(
        "Clip", call.tensor("x"), call.constant(call.value("alpha")), call.constant(call.value("beta"))
    )


@translates("threshold")
def threshold(call: Call) -> str:
    """At least alpha."""
    return call.emit("Max", call.tensor("x"), call.tensor("alpha"))


@translates("select")
def select(call: Call) -> str:
    """a where the condition holds, else b; ONNX Runtime selects no truths."""
    condition = call.as_kind("cond", Kind.BOOL)
    kind = kind_of(call.operation.outputs[0])
    if kind is not Kind.BOOL:
        return call.emit("Where", condition, call.as_kind("a", kind), call.as_kind("b", kind))
    chosen = call.emit("Where", condition, call.as_kind("a", Kind.INT), call.as_kind("b", Kind.INT))
    return call.cast(chosen, Kind.BOOL)


@translates("cast")
def cast(call: Call) -> str:
    """To another type; narrow integers wrap around as they do elsewhere."""
    from onnx import TensorProto

    kind = kind_of(call.operation.outputs[0])
    tensor = call.as_kind("x", kind)
    narrow = _NARROW_INTEGERS.get(str(call.value("dtype")))
    if narrow is None or call.kind("x") is Kind.BOOL:
        return tensor
    return call.cast(call.emit("Cast", tensor, to=getattr(TensorProto, narrow)), Kind.INT)


def _alike(call: Call) -> tuple[str, str]:
    """Both tensors in one type: the wider one where they differ."""
    kinds = {call.kind("x"), call.kind("y")}
    kind = Kind.FLOAT if Kind.FLOAT in kinds else Kind.INT
    if kinds == {Kind.BOOL} and call.kind_name in ("equal", "not_equal"):
        kind = Kind.BOOL
    return call.as_kind("x", kind), call.as_kind("y", kind)


def _plus_epsilon(call: Call, default: float) -> str:
    epsilon = float(call.value("epsilon", default))
    x = call.tensor("x")
    return call.emit("Add", x, call.constant(epsilon)) if epsilon else x
