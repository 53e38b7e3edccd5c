"""Weights of a backbone: a file, timm's own, or random by a seed."""

import hashlib
import os
import socket
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub
import timm
import torch
from timm.models import PretrainedCfg

from ...manifests.artifact.artifact import open_artifact
from ...manifests.artifact.checkpoints import WEIGHTS
from ...manifests.errors import ConfigError
from . import builtin as builtin  # registers it with timm
from .checkpoints import StateDict, read_checkpoint
from .profiles import Family, family_of
from .summation import fix_summation_order

_RANDOM = "random:"
_HUB = ("huggingface.co", 443)


@dataclass(frozen=True, slots=True)
class Weights:
    source: str  # file name, timm's hub id, or random:SEED
    sha256: str  # of the file; of the tensors if random
    licence: str  # "unknown" if the file has none, "none" if random
    family: Family


def weights_of(backbone: str, weights: str, expected_sha256: str = "") -> Weights:
    return read_weights(backbone, weights, expected_sha256)[0]


def read_weights(backbone: str, weights: str, expected_sha256: str = "") -> tuple[Weights, StateDict]:
    """The weights and their tensors as trained, before they are fitted to a size.

    `weights` is a file, a checkpoint artifact, "random:SEED", or "" for timm's own. A file with another sha256 than
    expected is not opened.
    """
    fix_summation_order()  # random weights are computed before a run begins
    if weights.startswith(_RANDOM):
        state = _random_state(backbone, weights.removeprefix(_RANDOM))
        _check_digest(weights, digest := _digest(state), expected_sha256)
        return Weights(weights, digest, "none", family_of(backbone, weights)), state
    if os.path.isdir(weights):
        return _from_checkpoint(weights, backbone, expected_sha256)
    if weights:
        return _from_file(Path(weights), Path(weights).name, backbone, expected_sha256)
    config = timm.get_pretrained_cfg(backbone)
    if config is not None and config.file:  # part of a package
        return _from_file(Path(config.file), backbone, backbone, expected_sha256, config.license or "unknown")
    path, source = _timm_file(backbone, config)
    return _from_file(path, source, full_name(backbone), expected_sha256, (config and config.license) or "unknown")


def full_name(backbone: str) -> str:
    """timm's full name of a backbone, with the tag of the weights that it would download."""
    config = timm.get_pretrained_cfg(backbone, allow_unregistered=True)
    return f"{backbone.partition('.')[0]}.{config.tag}" if config is not None and config.tag else backbone


def _from_checkpoint(path: str, backbone: str, expected_sha256: str) -> tuple[Weights, StateDict]:
    """A backbone trained by this package."""
    checkpoint = open_artifact(path, "checkpoint")
    kind = checkpoint.summary.counts.get("kind")
    if kind != "backbone":
        raise ConfigError(f"{path} is a checkpoint of kind {kind}, expected backbone; give one of that kind")
    checkpoint.file(WEIGHTS)  # checks its digest
    return _from_file(Path(path, WEIGHTS), f"checkpoint {checkpoint.plan.fingerprint[:12]}", backbone, expected_sha256)


def _from_file(
    path: Path, source: str, backbone: str, expected_sha256: str, licence: str = "unknown"
) -> tuple[Weights, StateDict]:
    if not path.is_file():
        raise ConfigError(f"weights {path} are not a file; give one, random:SEED, or nothing for timm's own")
    digest = _file_digest(path)
    _check_digest(str(path), digest, expected_sha256)
    state, metadata = read_checkpoint(path)
    licence = metadata.get("license") or metadata.get("licence") or licence
    return Weights(source, digest, licence, family_of(backbone, path.name, metadata.get("family", ""))), state


def _check_digest(what: str, digest: str, expected: str) -> None:
    if expected and digest != expected:
        raise ConfigError(
            f"weights {what} have sha256 {digest[:12]}… where {expected[:12]}… is expected; "
            "give the file that was used before, or choose another --out"
        )


def _timm_file(backbone: str, config: PretrainedCfg | None) -> tuple[Path, str]:
    """The file of timm's own weights, downloaded if it is not cached, and its source."""
    remedy = "download it elsewhere and pass it as --weights FILE, or set HF_HOME to a cache that holds it"
    if config is None or not config.has_weights:
        raise ConfigError(f"timm has no weights for {backbone}; pass --weights FILE, or name a variant that has some")
    hub_id = config.hf_hub_id
    if not hub_id:
        raise ConfigError(
            f"timm's weights for {backbone} are at {config.url}; download that file and pass --weights FILE"
        )
    name = config.hf_hub_filename or "model.safetensors"
    cached = huggingface_hub.try_to_load_from_cache(hub_id, name)
    if isinstance(cached, str):
        return Path(cached), hub_id
    if not _hub_answers():
        raise ConfigError(
            f"{name} of https://huggingface.co/{hub_id} is not on this machine, which is offline; {remedy}"
        )
    try:
        return Path(huggingface_hub.hf_hub_download(hub_id, name)), hub_id
    except OSError as error:
        first = (str(error).splitlines() or [""])[0]
        raise ConfigError(f"cannot download {name} of https://huggingface.co/{hub_id} ({first}); {remedy}") from error


def _hub_answers() -> bool:
    """A quick check, because the hub's client retries for most of a minute without a network."""
    if huggingface_hub.constants.HF_HUB_OFFLINE:
        return False
    if urllib.request.getproxies() or not huggingface_hub.constants.ENDPOINT.endswith(_HUB[0]):
        return True  # not a direct connection, so only a download can tell
    try:
        socket.create_connection(_HUB, timeout=5).close()
    except OSError:
        return False
    return True


def _random_state(backbone: str, seed: str) -> StateDict:
    """timm's initialisation at the backbone's own size, so that weights are the same for every image size."""
    if not seed.isascii() or not seed.isdigit() or int(seed) >= 2**63:
        raise ConfigError(
            f"weights {_RANDOM}{seed} have no valid seed; write {_RANDOM}0, or another whole number up to {2**63 - 1}"
        )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(seed))  # torch.manual_seed would also seed the devices
        return dict(timm.create_model(backbone, pretrained=False, num_classes=0).state_dict())


def _digest(state: StateDict) -> str:
    """Hashes name, type, shape and bytes of every tensor, sorted by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _file_digest(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise ConfigError(f"weights {path} cannot be read ({error.strerror}); give a readable file") from error
