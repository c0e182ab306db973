"""States, as of a cache of keys and values: read and written while the model runs."""

from __future__ import annotations

from fastvlm_ops.core.coreml.reference.call import Call
from fastvlm_ops.core.coreml.reference.registry import translates


@translates("read_state")
def read_state(call: Call) -> str:
    """What was written last; before that, what the state held before the prediction."""
    return call.states[str(call.variable("input").name)]


@translates("coreml_update_state")
def update_state(call: Call) -> str:
    """What coremltools makes of writing a state and reading it again."""
    value = call.tensor("value")
    call.states[str(call.variable("state").name)] = value
    return value
