"""Reads weight files without executing code from them.

Accepts safetensors, and torch checkpoints of tensors and plain values. Checkpoints of training runs often hold other
classes (DINO's holds an argparse.Namespace) and are refused. `convert_weights` reads such a file once: it replaces the
classes in FORGOTTEN by empty objects, refuses all others, and keeps the tensors.
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
# Keys of the network in a training checkpoint, the preferred one first.
_INSIDE = ("teacher", "model_ema", "state_dict_ema", "student", "model", "state_dict", "model_state_dict", "module")
_WRAPPERS = ("module.", "_orig_mod.")  # prefixes by DistributedDataParallel and torch.compile
_BACKBONES = ("backbone.", "encoder.")  # prefixes next to heads and decoders, which are dropped
_DINO_HEAD = "head.last_layer."
_LENGTH_BYTES = 8  # the length field before the header


class _Forgotten:
    """Replaces objects of other classes."""

    def __new__(cls, *values: object, **named: object) -> "_Forgotten":
        return object.__new__(cls)

    def __init__(self, *values: object, **named: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def read_checkpoint(path: Path) -> tuple[StateDict, dict[str, str]]:
    """The backbone's tensors by their names within it, and the file's metadata."""
    state, metadata = read_state(path)
    for prefix in _BACKBONES:
        inside = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        state = inside or state
    return state, metadata


def read_state(path: Path) -> tuple[StateDict, dict[str, str]]:
    """Like `read_checkpoint`, including tensors outside the backbone: heads, decoders, a learner."""
    if _is_safetensors(path):
        return _find_network(path, *_read_safetensors(path))
    others = _other_classes(path)
    if others:
        raise ConfigError(
            f"weights {path} hold {', '.join(others[:3])} besides tensors, which is not opened; run "
            f"`maskmill weights convert {path} {path.with_suffix('.safetensors')}` to keep only the tensors"
        )
    return _find_network(path, _read_torch(path), {})


def convert_weights(path: Path) -> tuple[bytes, list[str]]:
    """The backbone's tensors as a safetensors file, and the classes that were dropped."""
    others = [] if _is_safetensors(path) else _other_classes(path)
    foreign = [name for name in others if name not in FORGOTTEN]
    if foreign:
        raise ConfigError(
            f"weights {path} hold {', '.join(foreign[:3])}, and converting allows {', '.join(FORGOTTEN)} and no other; "
            "save only the network's state_dict where the class is trusted, and use that file"
        )
    with torch.serialization.safe_globals([(_Forgotten, name) for name in others]):
        state, metadata = read_checkpoint(path)
    # safetensors does not store tensors that share memory.
    copies = {name: tensor.detach().clone().contiguous() for name, tensor in sorted(state.items())}
    data = save(copies, metadata={**metadata, "format": "pt", "converted_from": path.name})
    return _sort_header(data), others


def _sort_header(data: bytes) -> bytes:
    """Sorts the header of a safetensors file, whose order otherwise varies from run to run."""
    end = _LENGTH_BYTES + int.from_bytes(data[:_LENGTH_BYTES], "little")
    header = json.dumps(json.loads(data[_LENGTH_BYTES:end]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % _LENGTH_BYTES)
    return b"".join((len(header).to_bytes(_LENGTH_BYTES, "little"), header, memoryview(data)[end:]))


def _is_safetensors(path: Path) -> bool:
    """Decides by content: eight bytes of length, then JSON."""
    try:
        with path.open("rb") as stream:
            head = stream.read(_LENGTH_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError(f"weights {path} do not exist; give an existing file") from None
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
    """Classes and functions in a checkpoint that torch does not load by default; listed without executing it."""
    if not zipfile.is_zipfile(path):  # the format before torch 1.6 does not allow listing them
        return []
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(str(path)))
    except OSError:
        raise
    except Exception as error:  # the parser may raise anything
        raise _unreadable_error(path, error) from error


def _read_torch(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (OSError, MemoryError):
        raise
    except Exception as error:  # the parser may raise anything
        raise _unreadable_error(path, error) from error


def _unreadable_error(path: Path, error: Exception) -> ConfigError:
    lines = str(error).splitlines() or [type(error).__name__]
    if "Unsupported global" in str(error):
        lines = ["it contains a class besides tensors, in torch's format from before 1.6"]
    return ConfigError(
        f"weights {path} are neither a whole safetensors file nor a whole torch checkpoint of tensors "
        f"({lines[0][:120]}); copy or download the file again, or give another"
    )


def _find_network(path: Path, loaded: object, metadata: dict[str, str]) -> tuple[StateDict, dict[str, str]]:
    state: StateDict = {}
    inner = loaded
    while isinstance(inner, Mapping) and not state:
        state = {name: value for name, value in inner.items() if isinstance(value, Tensor)}
        inner = next((inner[name] for name in _INSIDE if isinstance(inner.get(name), Mapping)), None)
    if not state:
        keys = ", ".join(map(str, loaded)) if isinstance(loaded, Mapping) else type(loaded).__name__
        raise ConfigError(f"weights {path} hold no network's tensors (found {keys[:120]}); give a state_dict")
    for prefix in _WRAPPERS:
        state = {name.removeprefix(prefix): value for name, value in state.items()}
    if any(name.startswith(_DINO_HEAD) for name in state) and "ibot" not in path.name:  # whose head has the same names
        metadata = {**metadata, "family": "dino"}
    return state, metadata
