"""The state of a training as one safetensors file: modules, optimiser, and the metric lines so far."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from safetensors.torch import load, save
from torch import Tensor

from .lesson import Lesson

_MODULE, _OPTIMISER = "module", "optimiser"
_STEP, _LINES, _UNWATCHED = "step", "lines", "unwatched"


@dataclass(frozen=True, slots=True)
class TrainingProgress:
    step: int  # the next one
    lines: list[str]  # metric lines
    unwatched: str = ""  # values of the previous step, if its watched metrics are still missing


def state_bytes(lesson: Lesson, progress: TrainingProgress) -> bytes:
    """A checkpoint for `restore_lesson`."""
    tensors = {_STEP: torch.tensor(progress.step), _UNWATCHED: _text(progress.unwatched)}
    tensors[_LINES] = _text("\n".join(progress.lines))
    for name, module in lesson.modules.items():
        for key, value in module.state_dict().items():
            tensors[f"{_MODULE}/{name}/{key}"] = value
    for place, values in lesson.optimiser.state_dict()["state"].items():
        for key, value in values.items():
            tensors[f"{_OPTIMISER}/{place}/{key}"] = torch.as_tensor(value)
    return save({name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()})


def restore_lesson(lesson: Lesson, data: bytes) -> TrainingProgress:
    tensors = load(data)
    for name, module in lesson.modules.items():
        module.load_state_dict(_select_prefix(tensors, f"{_MODULE}/{name}/"))
    states: dict[int, dict[str, Tensor]] = {}
    for key, value in _select_prefix(tensors, f"{_OPTIMISER}/").items():
        place, _, name = key.partition("/")
        states.setdefault(int(place), {})[name] = value
    groups = lesson.optimiser.state_dict()["param_groups"]
    lesson.optimiser.load_state_dict({"state": states, "param_groups": groups})
    lines, unwatched = (tensors[name].numpy().tobytes().decode() for name in (_LINES, _UNWATCHED))
    return TrainingProgress(int(tensors[_STEP]), lines.split("\n") if lines else [], unwatched)


def _select_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _text(text: str) -> Tensor:
    return torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8) if text else torch.zeros(0, dtype=torch.uint8)
