"""Runs ML programs on Linux: MIL becomes ONNX, and ONNX Runtime runs it.

It is for parity with golden outputs and for relative timing. What it tells of speed or placement holds for no
Apple hardware.
"""

from fastvlm_ops.core.coreml.reference.model import ReferenceModel, State
from fastvlm_ops.core.coreml.reference.translate import Precision, Translation, translate

__all__ = ["Precision", "ReferenceModel", "State", "Translation", "translate"]
