"""Recurrent layers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastvlm_ops.core.coreml.reference.call import Call, UnsupportedFormError
from fastvlm_ops.core.coreml.reference.registry import translates

_ACTIVATIONS = {
    "hard_sigmoid": "HardSigmoid",
    "relu": "Relu",
    "sigmoid": "Sigmoid",
    "sigmoid_hard": "HardSigmoid",
    "tanh": "Tanh",
}
_LSTM_ORDER = (0, 2, 1, 3)  # input, forget, output, cell → input, output, forget, cell
_GRU_ORDER = (2, 0, 1)  # reset, output, update → update, reset, output
_PEEPHOLE_ORDER = (0, 2, 1)


@translates("lstm")
def lstm(call: Call) -> list[str]:
    """Forwards, or both ways at once; the state of both stands side by side."""
    direction = str(call.value("direction", "forward"))
    if direction == "reverse" or call.value("clip") is not None:
        raise UnsupportedFormError("backwards alone" if direction == "reverse" else "clip")
    ends = ("", "_back") if direction == "bidirectional" else ("",)
    names = ("recurrent_activation", "cell_activation", "activation")
    activations = [_activation(call, name, "sigmoid" if "recurrent" in name else "tanh") for name in names]
    operands = [
        call.tensor("x"),
        _weights(call, "weight_ih", ends, _LSTM_ORDER),
        _weights(call, "weight_hh", ends, _LSTM_ORDER),
        _biases(call, ends, _LSTM_ORDER),
        "",
        _apart(call, "initial_h", len(ends)),
        _apart(call, "initial_c", len(ends)),
    ]
    if call.value("peephole") is not None:
        operands.append(_weights(call, "peephole", ends, _PEEPHOLE_ORDER))
    hidden_size = call.static_shape("weight_hh")[1]
    whole, hidden, cell = call.emit_many(
        "LSTM",
        3,
        *operands,
        direction=direction,
        hidden_size=hidden_size,
        activations=activations * len(ends),
    )
    hidden, cell = (_together(call, state, len(ends) * hidden_size) for state in (hidden, cell))
    return [_sequence(call, whole, hidden, len(ends) * hidden_size), hidden, cell]


@translates("gru")
def gru(call: Call) -> list[str]:
    """Forwards."""
    _require_forward(call)
    hidden_size = call.static_shape("weight_hh")[1]
    zeros = np.zeros(3 * hidden_size, np.float32)
    hidden_bias = call.array("bias") if call.value("bias") is not None else zeros
    input_bias = call.array("input_bias") if call.value("input_bias") is not None else zeros
    biases = [_reordered(one, _GRU_ORDER) for one in (input_bias, hidden_bias)]
    whole, hidden = call.emit_many(
        "GRU",
        2,
        call.tensor("x"),
        _weights(call, "weight_ih", ("",), _GRU_ORDER),
        _weights(call, "weight_hh", ("",), _GRU_ORDER),
        call.constant(np.concatenate(biases)[None]),
        "",
        _apart(call, "initial_h", 1),
        hidden_size=hidden_size,
        activations=[
            _activation(call, "recurrent_activation", "sigmoid"),
            _activation(call, "activation", "tanh"),
        ],
        linear_before_reset=int(bool(call.value("reset_after", False))),
    )
    hidden = _together(call, hidden, hidden_size)
    return [_sequence(call, whole, hidden, hidden_size), hidden]


@translates("rnn")
def rnn(call: Call) -> list[str]:
    """Forwards."""
    _require_forward(call)
    hidden_size = call.static_shape("weight_hh")[1]
    whole, hidden = call.emit_many(
        "RNN",
        2,
        call.tensor("x"),
        _weights(call, "weight_ih", ("",), (0,)),
        _weights(call, "weight_hh", ("",), (0,)),
        _biases(call, ("",), (0,)),
        "",
        _apart(call, "initial_h", 1),
        hidden_size=hidden_size,
        activations=[_activation(call, "activation", "tanh")],
    )
    hidden = _together(call, hidden, hidden_size)
    return [_sequence(call, whole, hidden, hidden_size), hidden]


def _require_forward(call: Call) -> None:
    if str(call.value("direction", "forward")) != "forward":
        raise UnsupportedFormError("backwards")


def _activation(call: Call, name: str, default: str) -> str:
    asked = str(call.value(name, default)).lower()
    if asked not in _ACTIVATIONS:
        raise UnsupportedFormError(f"{name} {asked}")
    return _ACTIVATIONS[asked]


def _reordered(weight: NDArray[Any], order: tuple[int, ...]) -> NDArray[np.float32]:
    """Rows of each gate, in the order that ONNX has the gates in."""
    gates = np.split(np.asarray(weight, np.float32), len(order), axis=0)
    return np.concatenate([gates[place] for place in order], axis=0)


def _weights(call: Call, name: str, ends: tuple[str, ...], order: tuple[int, ...]) -> str:
    return call.constant(np.stack([_reordered(call.array(name + end), order) for end in ends]))


def _biases(call: Call, ends: tuple[str, ...], order: tuple[int, ...]) -> str:
    """MIL has one bias, ONNX one of the input and one of the state."""
    rows = []
    for end in ends:
        size = call.static_shape(f"weight_hh{end}")[0]
        given = call.array(f"bias{end}") if call.value(f"bias{end}") is not None else np.zeros(size)
        rows.append(np.concatenate([_reordered(given, order), np.zeros(size, np.float32)]))
    return call.constant(np.stack(rows))


def _apart(call: Call, name: str, directions: int) -> str:
    """A state of batch x (directions · size), as directions x batch x size."""
    batch, size = call.static_shape(name)
    split = call.reshaped(call.tensor(name), batch, directions, size // directions)
    return call.emit("Transpose", split, perm=[1, 0, 2])


def _together(call: Call, state: str, size: int) -> str:
    return call.reshaped(call.emit("Transpose", state, perm=[1, 0, 2]), -1, size)


def _sequence(call: Call, whole: str, hidden: str, size: int) -> str:
    """All steps, as steps x batch x (directions · size), or only the state after the last one."""
    if not bool(call.value("output_sequence", False)):
        return call.emit("Unsqueeze", hidden, call.ints_tensor(0))
    steps = call.emit("Transpose", whole, perm=[0, 2, 1, 3])
    shape = call.emit("Concat", call.shape_tensor(steps, 0, 2), call.ints_tensor(size), axis=0)
    return call.emit("Reshape", steps, shape)
