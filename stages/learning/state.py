"""Everything a training has come to, as one safetensors file: modules, optimiser, and the metric lines so far."""

import json
from collections.abc import Mapping, Sequence

import torch
from safetensors.torch import load, save
from torch import Tensor

from .lesson import Lesson

_MODULE, _OPTIMISER, _LINES, _STEP = "module", "optimiser", "lines", "step"


def state_bytes(lesson: Lesson, step: int, lines: Sequence[str]) -> bytes:
    """What `restored` goes on from; `step` is the next one."""
    tensors = {_STEP: torch.tensor(step), _LINES: _text("\n".join(lines))}
    for name, module in lesson.modules.items():
        for key, value in module.state_dict().items():
            tensors[f"{_MODULE}/{name}/{key}"] = value
    for place, values in lesson.optimiser.state_dict()["state"].items():
        for key, value in values.items():
            tensors[f"{_OPTIMISER}/{place}/{key}"] = torch.as_tensor(value)
    return save({name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()})


def restored(lesson: Lesson, data: bytes) -> tuple[int, list[str]]:
    """Puts a lesson where it was; the next step and the metric lines."""
    tensors = load(data)
    for name, module in lesson.modules.items():
        module.load_state_dict(_below(tensors, f"{_MODULE}/{name}/"))
    states: dict[int, dict[str, Tensor]] = {}
    for key, value in _below(tensors, f"{_OPTIMISER}/").items():
        place, _, name = key.partition("/")
        states.setdefault(int(place), {})[name] = value
    groups = lesson.optimiser.state_dict()["param_groups"]
    lesson.optimiser.load_state_dict({"state": states, "param_groups": groups})
    lines = bytes(tensors[_LINES].tolist()).decode()
    return int(tensors[_STEP]), lines.split("\n") if lines else []


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _text(text: str) -> Tensor:
    return torch.tensor(list(text.encode()), dtype=torch.uint8)


def metric_line(step: int, values: Mapping[str, object]) -> str:
    return json.dumps({"step": step, **values})
