"""Client of coremltools' ModelRunner app: JSON-RPC by files that are copied into its container and out of it.

A request is a folder below ``requests/messages``; its resource lies below ``requests/resources`` under the
request's id, and the answer below ``responses`` under it. The app looks a resource up by the id that stands
in the message, whatever the folder is called. So a request that needs the same resource again takes the id of
the first one, in a folder of its own, and nothing is sent twice; the answer is known by what is new in it.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastvlm_ops.core.coreml.devices.devicectl import AppProcess, Container, DeviceCtl
from fastvlm_ops.core.coreml.devices.interface import ComputeUnit, FailureCode, Placement
from fastvlm_ops.core.coreml.devices.tensors import TensorError, read_tensors, write_tensors
from fastvlm_ops.core.coreml.devices.trouble import DeviceTroubleError, trouble

FOLDER = "Documents/modelrunnerd"
_POLL_SECONDS = 0.2
_LOOK_SECONDS = 5.0  # between looks at whether the device is still there, while an answer is waited for
_COPY_SECONDS = 60.0
_UNITS = {"cpu": "cpu", "gpu": "gpu", "neuralEngine": "ane"}


@dataclass(frozen=True)
class LoadedModel:
    """A model that the app holds.

    :param request_id: of the request that sent it, which its files lie under
    :param model_id: that the app knows it by
    :param unit: that it may use
    :param milliseconds: that loading took on the device
    """

    request_id: str
    model_id: str
    unit: ComputeUnit
    milliseconds: float


@dataclass(frozen=True)
class Answer:
    """What a prediction gave.

    :param milliseconds: measured on the device
    :param descriptors: of the outputs
    :param resource: name of the file that holds them, new with each
    """

    milliseconds: float
    descriptors: Mapping[str, Any]
    resource: str


class Inputs:
    """Inputs that are sent once and predicted from often.

    :param arrays: by name
    """

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        self.arrays = arrays
        self.request_id = ""
        self.descriptors: Mapping[str, Any] = {}
        self.last_resource = ""


class ModelRunner:
    """The app, launched and spoken to.

    :param control: devicectl
    :param container: of the app
    :param app: that runs
    :param scratch: folder for files on their way
    :param answer_seconds: that one answer may take
    :param deadline: of all, by ``time.monotonic()``
    """

    def __init__(
        self,
        control: DeviceCtl,
        container: Container,
        app: AppProcess,
        scratch: Path,
        *,
        answer_seconds: float,
        deadline: float,
    ) -> None:
        self._control = control
        self._container = container
        self._app = app
        self._scratch = scratch
        self._answer_seconds = answer_seconds
        self._deadline = deadline

    def load(self, compiled: Path, unit: ComputeUnit) -> LoadedModel:
        """Send a model and load it.

        :param compiled: folder of the ``.mlmodelc``
        :raises DeviceTroubleError: it does not load
        """
        request_id = str(uuid.uuid4())
        self._send(compiled, f"requests/resources/{request_id}/{compiled.name}")
        return self._load(request_id, compiled.name, unit)

    def load_again(self, model: LoadedModel, name: str) -> LoadedModel:
        """Unload a model and load it anew from the files that lie on the device.

        :param name: of its compiled folder
        :raises DeviceTroubleError: it does not load
        """
        self.unload(model)
        return self._load(model.request_id, name, model.unit)

    def predict(self, model: LoadedModel, inputs: Inputs) -> Answer:
        """Predict once.

        :raises DeviceTroubleError: it fails
        """
        if not inputs.request_id:
            self._send_inputs(inputs)
        parameters = {
            "modelID": model.model_id,
            "computeUnits": str(model.unit),
            "inputs": inputs.descriptors,
        }
        result = self._call(
            "Prediction",
            parameters,
            inputs.request_id,
            "inputs.bin",
            FailureCode.PREDICTION_FAILED,
            lambda result: result.get("resource") != inputs.last_resource,
        )
        descriptors, resource = result.get("outputs"), result.get("resource")
        if not isinstance(descriptors, dict) or not isinstance(resource, str) or "/" in resource:
            raise trouble(FailureCode.PREDICTION_FAILED, "the runner's answer to a prediction has no outputs")
        inputs.last_resource = resource
        return Answer(_milliseconds(result), descriptors, resource)

    def outputs(self, inputs: Inputs, answer: Answer) -> dict[str, np.ndarray]:
        """Fetch the outputs of the last prediction.

        :raises DeviceTroubleError: they cannot be fetched or read
        """
        file = self._scratch / "outputs.bin"
        if not self._receive(f"responses/{inputs.request_id}/{answer.resource}", file):
            raise trouble(FailureCode.PREDICTION_FAILED, "the outputs cannot be copied from the device")
        try:
            return read_tensors(answer.descriptors, file)
        except TensorError as error:
            raise trouble(FailureCode.PREDICTION_FAILED, str(error)) from error

    def placement(self, model: LoadedModel, kinds: Mapping[str, str]) -> tuple[Placement, ...]:
        """Ask where Core ML plans to run each operation.

        :param kinds: operator by the name of an operation's first output
        :returns: nothing where the system is too old to tell
        :raises DeviceTroubleError: the app does not answer
        """
        try:
            result = self._call(
                "ComputePlan", {"modelID": model.model_id}, str(uuid.uuid4()), None, FailureCode.INTERNAL
            )
        except DeviceTroubleError as error:
            if "not supported on this platform" in error.failure.detail:
                return ()
            raise
        found = (_placement(entry, kinds) for entry in result.get("infos", []))
        return tuple(one for one in found if one is not None)

    def unload(self, model: LoadedModel) -> None:
        """Unload a model.

        :raises DeviceTroubleError: the app does not answer
        """
        parameters = {"modelID": model.model_id, "computeUnits": str(model.unit)}
        self._call("Unload", parameters, str(uuid.uuid4()), None, FailureCode.INTERNAL)

    def _load(self, request_id: str, name: str, unit: ComputeUnit) -> LoadedModel:
        model_id = str(uuid.uuid4())
        parameters = {"modelID": model_id, "computeUnits": str(unit), "name": name}
        result = self._call(
            "Load",
            parameters,
            request_id,
            name,
            FailureCode.LOAD_FAILED,
            lambda result: result.get("modelID") == model_id,
        )
        return LoadedModel(request_id, model_id, unit, _milliseconds(result))

    def _send_inputs(self, inputs: Inputs) -> None:
        file = self._scratch / "inputs.bin"
        try:
            inputs.descriptors = write_tensors(inputs.arrays, file)
        except TensorError as error:
            raise trouble(FailureCode.UNSUPPORTED_MODEL, str(error)) from error
        request_id = str(uuid.uuid4())
        self._send(file, f"requests/resources/{request_id}/inputs.bin")
        inputs.request_id = request_id

    def _call(
        self,
        method: str,
        parameters: Mapping[str, Any],
        request_id: str,
        resource: str | None,
        otherwise: FailureCode,
        is_new: Callable[[Mapping[str, Any]], bool] = lambda _: True,
    ) -> Mapping[str, Any]:
        message = {
            "jsonrpc": "2.0",
            "id": request_id,
            "method": f"MLModelService.{method}",
            "params": parameters,
        }
        file = self._scratch / "message.json"
        file.write_text(json.dumps(message | ({"resource": resource} if resource else {})))
        self._send(file, f"requests/messages/{uuid.uuid4()}/message.json")
        answer = self._wait(method, request_id, is_new)
        if error := answer.get("error"):
            said = str(error.get("message", "")) if isinstance(error, dict) else str(error)
            raise DeviceTroubleError(otherwise, f"{method} failed on the device: {said[:600]}")
        result: Mapping[str, Any] = answer["result"]
        return result

    def _wait(
        self, method: str, request_id: str, is_new: Callable[[Mapping[str, Any]], bool]
    ) -> Mapping[str, Any]:
        file = self._scratch / "answer.json"
        started = looked = time.monotonic()
        while True:
            file.unlink(missing_ok=True)
            if self._receive(f"responses/{request_id}/message.json", file):
                answer = _answer(file, request_id)
                if answer and (answer.get("error") or is_new(answer["result"])):
                    return answer
            if not self._app.alive:
                raise self._ended(method)
            now = time.monotonic()
            self._check_time(method, now - started)
            if now - looked > _LOOK_SECONDS:
                self._check_there()
                looked = now
            time.sleep(_POLL_SECONDS)

    def _check_time(self, method: str, waited: float) -> None:
        if waited > self._answer_seconds:
            self._check_there()
            what = f"the runner did not answer {method} within {self._answer_seconds:g} s"
            raise DeviceTroubleError(FailureCode.NO_ANSWER, what)
        if time.monotonic() > self._deadline:
            raise DeviceTroubleError(FailureCode.TIMED_OUT, f"the session's time was over during {method}")

    def _check_there(self) -> None:
        """Tell a device that went away from an app that does not answer."""
        found = self._control.awake(self._container.device.identifier)
        if found is None or found.state != "connected":
            detail = "the device went away during the session; look at its cable, or its network"
            raise DeviceTroubleError(FailureCode.DEVICE_DISCONNECTED, detail)

    def _ended(self, method: str) -> DeviceTroubleError:
        self._check_there()
        return trouble(FailureCode.APP_CRASHED, f"the runner ended during {method}", self._app.said())

    def _send(self, source: Path, destination: str) -> None:
        try:
            self._control.copy_to(self._container, source, f"{FOLDER}/{destination}", self._left())
        except DeviceTroubleError as error:
            if error.failure.code in (FailureCode.INTERNAL, FailureCode.TIMED_OUT):
                self._check_there()
            raise

    def _receive(self, source: str, destination: Path) -> bool:
        seconds = min(self._left(), _COPY_SECONDS)
        return self._control.copy_from(self._container, f"{FOLDER}/{source}", destination, seconds)

    def _left(self) -> float:
        return max(self._deadline - time.monotonic(), 1.0)


def _answer(file: Path, request_id: str) -> Mapping[str, Any] | None:
    """Return what a file holds; None where it is not, or not wholly, the answer."""
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return None
    if not isinstance(content, dict) or content.get("id") != request_id:
        return None
    return content if content.get("error") or isinstance(content.get("result"), dict) else None


def _milliseconds(result: Mapping[str, Any]) -> float:
    duration = result.get("duration")
    if not isinstance(duration, int) or duration < 0:
        raise trouble(FailureCode.INTERNAL, "the runner's answer has no duration")
    return duration / 1e6


def _placement(entry: Any, kinds: Mapping[str, str]) -> Placement | None:
    if not isinstance(entry, dict):
        return None
    components = entry.get("path", {}).get("components", [])
    names = [one["programOperation"]["data"]["outputName"] for one in components if "programOperation" in one]
    if not names:
        return None
    preferred = entry.get("deviceUsage", {}).get("preferred", {})
    unit = next((name for key, name in _UNITS.items() if key in preferred), None)
    cost = entry.get("estimatedCost")
    return Placement(names[-1], kinds.get(names[-1], ""), unit, float(cost) if cost is not None else None)
