"""Files of weights, read without running anything that they say.

safetensors, and torch checkpoints that hold nothing but tensors and plain values. A checkpoint of a training run often
holds more (DINO's has its argparse.Namespace) and is refused where it is used. `convert_weights` reads it once: every
class it is known to hold is replaced by one that forgets what it is given, any other is refused, and the tensors
remain.
"""

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ...manifests.errors import ConfigError

StateDict = dict[str, Tensor]

FORGOTTEN = (
    "argparse.Namespace",
    *("pathlib.Path", "pathlib.PosixPath", "pathlib.WindowsPath"),
    *("numpy.dtype", "numpy.ndarray"),
    *("numpy.core.multiarray.scalar", "numpy.core.multiarray._reconstruct"),
    *("numpy._core.multiarray.scalar", "numpy._core.multiarray._reconstruct"),
)
# Where a training run keeps its network, the one that is meant to be used first.
_INSIDE = ("teacher", "model_ema", "state_dict_ema", "student", "model", "state_dict", "model_state_dict", "module")
_WRAPPERS = ("module.", "_orig_mod.")  # put before every name by DistributedDataParallel and torch.compile
_BACKBONES = ("backbone.", "encoder.")  # beside heads and decoders, which are left out
_DINO_HEAD = "head.last_layer."
_LENGTH_BYTES = 8  # of the header, before it


class _Forgotten:
    """What stands where an object of another class was."""

    def __new__(cls, *values: object, **named: object) -> "_Forgotten":
        return object.__new__(cls)

    def __init__(self, *values: object, **named: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def read_checkpoint(path: Path) -> tuple[StateDict, dict[str, str]]:
    """The network's tensors by the names that they have inside it, and what the file says of itself."""
    state, metadata = read_state(path)
    for prefix in _BACKBONES:
        inside = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        state = inside or state
    return state, metadata


def read_state(path: Path) -> tuple[StateDict, dict[str, str]]:
    """The same with whatever stands beside the backbone: heads, decoders, a learner."""
    if _is_safetensors(path):
        tensors, metadata = _read_safetensors(path)
    else:
        others = _other_classes(path)
        if others:
            raise ConfigError(
                f"weights {path} hold {', '.join(others[:3])} besides tensors, which is not opened; "
                f"`maskmill weights convert {path} {path.with_suffix('.safetensors')}` keeps the tensors alone"
            )
        tensors, metadata = _read_torch(path), {}
    return _find_network(path, tensors, metadata)


def convert_weights(path: Path) -> tuple[bytes, list[str]]:
    """The network's tensors as a safetensors file, and the classes that were met and forgotten."""
    others = [] if _is_safetensors(path) else _other_classes(path)
    foreign = [name for name in others if name not in FORGOTTEN]
    if foreign:
        raise ConfigError(
            f"weights {path} hold {', '.join(foreign[:3])}, and converting allows {', '.join(FORGOTTEN)} and no other; "
            "save the network's state_dict alone where the class is trusted, and use that file"
        )
    with torch.serialization.safe_globals([(_Forgotten, name) for name in others]):
        state, metadata = read_checkpoint(path)
    # Tensors may share memory or be views of larger ones, and neither can be stored.
    apart = {name: tensor.detach().clone().contiguous() for name, tensor in sorted(state.items())}
    data = save(apart, metadata={**metadata, "format": "pt", "converted_from": path.name})
    return _sort_header(data), others


def _sort_header(data: bytes) -> bytes:
    """A safetensors file says what it holds in an order that changes from one time to the next; here it does not."""
    end = _LENGTH_BYTES + int.from_bytes(data[:_LENGTH_BYTES], "little")
    header = json.dumps(json.loads(data[_LENGTH_BYTES:end]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % _LENGTH_BYTES)
    return b"".join((len(header).to_bytes(_LENGTH_BYTES, "little"), header, memoryview(data)[end:]))


def _is_safetensors(path: Path) -> bool:
    """By content: eight bytes of length, then JSON."""
    try:
        with path.open("rb") as stream:
            head = stream.read(_LENGTH_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError(f"weights {path} do not exist; give a file, timm's name of a backbone has none") from None
    except OSError as error:
        raise ConfigError(f"weights {path} cannot be read ({error.strerror}); give a readable file") from error
    return head[_LENGTH_BYTES:] == b"{" or path.suffix == ".safetensors"


def _read_safetensors(path: Path) -> tuple[StateDict, dict[str, str]]:
    try:
        with safe_open(path, framework="pt", device="cpu") as stream:
            return {name: stream.get_tensor(name) for name in stream.keys()}, stream.metadata() or {}  # noqa: SIM118
    except SafetensorError as error:
        raise _unreadable_error(path, error) from error


def _other_classes(path: Path) -> list[str]:
    """Classes and functions that a checkpoint names and torch does not load by itself; found without running it."""
    if not zipfile.is_zipfile(path):  # the format before torch 1.6, in which they cannot be listed
        return []
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(str(path)))
    except OSError:
        raise
    except Exception as error:  # its parser raises whatever it stumbles over
        raise _unreadable_error(path, error) from error


def _read_torch(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (OSError, MemoryError):
        raise
    except Exception as error:  # its parser raises whatever it stumbles over
        raise _unreadable_error(path, error) from error


def _unreadable_error(path: Path, error: Exception) -> ConfigError:
    lines = str(error).splitlines() or [type(error).__name__]
    if "Unsupported global" in str(error):
        lines = ["it names a class besides tensors, in torch's format from before 1.6"]
    return ConfigError(
        f"weights {path} are neither a whole safetensors file nor a whole torch checkpoint of tensors "
        f"({lines[0][:120]}); copy or download the file again, or give another"
    )


def _find_network(path: Path, loaded: object, metadata: dict[str, str]) -> tuple[StateDict, dict[str, str]]:
    held = loaded
    while isinstance(held, Mapping) and not any(isinstance(value, Tensor) for value in held.values()):
        inner = next((held[name] for name in _INSIDE if isinstance(held.get(name), Mapping)), None)
        if inner is None:
            break
        held = inner
    state = (
        {name: value for name, value in held.items() if isinstance(value, Tensor)} if isinstance(held, Mapping) else {}
    )
    if not state:
        keys = ", ".join(map(str, loaded)) if isinstance(loaded, Mapping) else type(loaded).__name__
        raise ConfigError(f"weights {path} hold no network's tensors (found {keys[:120]}); give a state_dict")
    for prefix in _WRAPPERS:
        state = {name.removeprefix(prefix): value for name, value in state.items()}
    if any(name.startswith(_DINO_HEAD) for name in state):
        metadata = {**metadata, "family": "dino"}
    return state, metadata
