"""The ModelRunner app of the stand-in: a process that answers what it finds in its container."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import numpy as np

from fastvlm_ops.core.coreml.devices.tensors import read_tensors, write_tensors
from fastvlm_ops.local.apple.packages import STAND_IN
from fastvlm_ops.local.apple.predicting import Clock, Predictor, plan
from fastvlm_ops.local.apple.script import FaultKind, ScriptedDevice
from fastvlm_ops.local.apple.state import VARIABLE, State

_POLL_SECONDS = 0.01
_IDLE_SECONDS = 900.0
_UNITS = {"cpu": {"cpu": {}}, "gpu": {"gpu": {}}, "ane": {"neuralEngine": {"totalCoreCount": 16}}}
_ERROR = -32001


class RefusedError(Exception):
    """A request is answered with an error."""


class _Loaded:
    def __init__(
        self, compiled: Path, description: dict[str, Any], unit: str, clock: Clock, cache: Path
    ) -> None:
        self.description = description
        self.unit = unit
        self.clock = clock
        self.predictor = Predictor(compiled, description, cache)


class ModelRunner:
    """The app.

    :param state: of the stand-in
    :param device: that it runs on
    :param container: of its files
    """

    def __init__(self, state: State, device: ScriptedDevice, container: Path) -> None:
        self._state = state
        self._device = device
        self._folder = container / "Documents" / "modelrunnerd"
        self._models: dict[str, _Loaded] = {}
        self._seen: set[str] = set()
        self._session = state.count(f"session-{device.identifier}")
        self._loads = 0

    def serve(self) -> None:
        """Answer until the container is gone, as with an app that is uninstalled, or nobody asks any more."""
        messages = self._folder / "requests" / "messages"
        for folder in (messages, self._folder / "requests" / "resources", self._folder / "responses"):
            folder.mkdir(parents=True, exist_ok=True)
        heard = time.monotonic()
        while messages.is_dir() and time.monotonic() - heard < _IDLE_SECONDS:
            # Like the app's own watch of the folder: a request is a folder that was not there before.
            for path in sorted(messages.iterdir()):
                file = path / "message.json"
                if path.name in self._seen or not file.is_file():
                    continue
                try:
                    message = json.loads(file.read_text())
                except ValueError:
                    continue  # it is still being copied
                heard = time.monotonic()
                self._seen.add(path.name)
                self._answer(message)
                file.unlink(missing_ok=True)
            time.sleep(_POLL_SECONDS)

    def _answer(self, message: dict[str, Any]) -> None:
        name = message.get("resource")
        resource = self._folder / "requests" / "resources" / message["id"] / name if name else None
        content: dict[str, Any] = {"jsonrpc": "2.0", "id": message["id"]}
        file: Path | None = None
        try:
            method = message["method"].removeprefix("MLModelService.")
            handler = {"Load": self._load, "Unload": self._unload, "ComputePlan": self._plan}.get(method)
            if method == "Prediction":
                answered = self._predict(message["params"], resource)
                if answered is None:
                    return
                content["result"], file = answered
                content["resource"] = file.name
            elif handler is None:
                raise RefusedError(f"Missing parameters for '{message['method']}'.")
            else:
                content["result"] = handler(message["params"], resource)
        except RefusedError as error:
            content |= {"result": {}, "error": {"code": _ERROR, "message": str(error)}}
        self._respond(content, file)

    def _respond(self, content: dict[str, Any], file: Path | None) -> None:
        responses = self._folder / "responses"
        made = responses / f".{uuid.uuid4()}"
        made.mkdir()
        (made / "message.json").write_text(json.dumps(content))
        if file is not None:
            file.rename(made / file.name)
        shutil.rmtree(responses / content["id"], ignore_errors=True)
        made.rename(responses / content["id"])

    def _model(self, parameters: dict[str, Any]) -> _Loaded:
        model = self._models.get(parameters["modelID"])
        if model is None:
            raise RefusedError(
                f"Missing resource: The model with ID '{parameters['modelID']}' is not loaded."
            )
        return model

    def _fault(self, kind: FaultKind, name: str) -> Any:
        return self._state.fault(kind, self._device.name, name)

    def _load(self, parameters: dict[str, Any], resource: Path | None) -> dict[str, Any]:
        model_id = parameters["modelID"]
        if model_id in self._models:
            return {"modelID": model_id, "duration": 0, "isCached": True}
        if resource is None or not (resource / STAND_IN).is_file():
            raise RefusedError("Missing resource: Model file is required but was not provided.")
        description = json.loads((resource / STAND_IN).read_text())
        name = description["name"]
        if self._fault(FaultKind.CRASH_ON_LOAD, name):
            _crash()
        if self._fault(FaultKind.LOAD, name):
            raise RefusedError("Failed to build the model execution plan using a model architecture file.")
        unit = parameters["computeUnits"]
        clock = Clock(description, unit, self._state.script, self._device.name, self._session)
        duration = clock.load_ns(cold=not self._loads)
        self._loads += 1
        self._models[model_id] = _Loaded(resource, description, unit, clock, self._state.folder / "cache")
        return {"modelID": model_id, "duration": duration, "isCached": False}

    def _unload(self, parameters: dict[str, Any], _: Path | None) -> dict[str, Any]:
        self._model(parameters)
        del self._models[parameters["modelID"]]
        return {"modelID": parameters["modelID"]}

    def _predict(
        self, parameters: dict[str, Any], resource: Path | None
    ) -> tuple[dict[str, Any], Path] | None:
        model = self._model(parameters)
        name = model.description["name"]
        if resource is None or not resource.is_file():
            raise RefusedError("Missing resource: The TensorDescriptor requires a data file.")
        if self._fault(FaultKind.DISCONNECT, name):
            self._state.go(self._device)
            sys.exit(1)
        if self._fault(FaultKind.CRASH_ON_PREDICT, name):
            _crash()
        if self._fault(FaultKind.NO_ANSWER, name):
            return None
        if slow := self._fault(FaultKind.SLOW_ANSWER, name):
            time.sleep(slow.seconds)
        if self._fault(FaultKind.PREDICT, name):
            raise RefusedError("Unable to compute the prediction using a neural network model.")
        outputs = model.predictor.predict(read_tensors(parameters["inputs"], resource))
        if self._fault(FaultKind.NAN_OUTPUTS, name):
            outputs = {key: _with_nan(value) for key, value in outputs.items()}
        file = self._folder.parent / f"{uuid.uuid4()}.bin"
        descriptors = write_tensors(outputs, file)
        for descriptor in descriptors.values():  # as the real app has it: counted from the start of the file
            descriptor["storage"]["size"] += descriptor["storage"]["offset"]
        result = {"outputs": descriptors, "duration": model.clock.predict_ns(), "resource": file.name}
        return {"modelID": parameters["modelID"], **result}, file

    def _plan(self, parameters: dict[str, Any], _: Path | None) -> dict[str, Any]:
        model = self._model(parameters)
        script = self._state.script
        infos = []
        for operation, place, cost in plan(model.description, model.unit, script):
            preferred = _UNITS[place]
            components = [
                {"program": {}},
                {"programFunction": {"data": {"name": "main"}}},
                {"programBlock": {"data": {"index": -1}}},
                {"programOperation": {"data": {"outputName": operation["outputs"][0]}}},
            ]
            usage = {"supported": [_UNITS["cpu"], preferred], "preferred": preferred}
            path = {"components": components}
            infos.append({"deviceUsage": usage, "estimatedCost": cost, "path": path})
        return {"modelID": parameters["modelID"], "infos": infos}


def main(state: str, identifier: str, bundle: str) -> int:
    """Run the app until it is told to end.

    :param state: folder of the stand-in's state
    :param identifier: of the device
    :param bundle: of the app
    """
    os.environ[VARIABLE] = state
    played = State(Path(state))
    device = played.device(identifier)
    if device is None:
        return 1
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    ModelRunner(played, device, played.container(device, bundle)).serve()
    return 0


def _crash() -> None:
    os.kill(os.getpid(), signal.SIGABRT)


def _with_nan(array: np.ndarray) -> np.ndarray:
    if not np.issubdtype(array.dtype, np.floating):
        return array
    changed = array.copy()
    changed.reshape(-1)[:1] = np.nan
    return changed
