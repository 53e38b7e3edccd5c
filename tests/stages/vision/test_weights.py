"""Files of weights: official names, training checkpoints, other architectures, damage, and code in disguise."""

import argparse
import hashlib
import pathlib
import socket
from functools import cache
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from builders.mistakes import assert_named
from maskmill.manifests.errors import ConfigError, MissingArtifact
from maskmill.stages.choices import Positions
from maskmill.stages.vision.backbone import load_backbone
from maskmill.stages.vision.checkpoints import convert_weights, read_checkpoint
from maskmill.stages.vision.positions import resample_as_dino, resample_as_timm
from maskmill.stages.vision.weights import read_weights, weights_of

TINY = "vit_tiny_patch16_224"


@cache
def trained(name: str = TINY):
    """Weights as after training: nothing at 0 or 1."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        state = timm.create_model(name, pretrained=False, num_classes=0).state_dict()
        return {key: tensor + 0.02 * torch.randn_like(tensor) for key, tensor in state.items()}


def same(found, expected) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


def loaded(name, path, size=224):
    _, state = read_weights(name, str(path))
    return load_backbone(name, state, size, size, "timm").model.state_dict()


def with_prefix(prefix, state):
    return {prefix + name: tensor for name, tensor in state.items()}


DINO_HEAD = {"head.mlp.0.weight": torch.ones(3, 3), "head.last_layer.weight_g": torch.ones(3)}
SHAPES_OF_FILES = {
    "plain": lambda s: s,
    "with a classifier": lambda s: {**s, "head.weight": torch.ones(10, 192), "head.bias": torch.ones(10)},
    "in model": lambda s: {"model": s, "epoch": 3},
    "in state_dict, parallel": lambda s: {"state_dict": with_prefix("module.", s), "epoch": 3},
    "teacher of DINO": lambda s: {
        "student": with_prefix("module.backbone.", {name: tensor + 1 for name, tensor in s.items()}),
        "teacher": {**with_prefix("backbone.", s), **DINO_HEAD},
        "epoch": 3,
    },
    "student of DINO": lambda s: {"student": with_prefix("module.backbone.", s)},
    "encoder of a mask autoencoder": lambda s: {
        "model": {**s, "mask_token": torch.ones(1, 1, 512), "decoder_pos_embed": torch.ones(1, 197, 512)}
    },
    "encoder.": lambda s: {**with_prefix("encoder.", s), "decoder.weight": torch.ones(2)},
}


@pytest.mark.parametrize("kind", SHAPES_OF_FILES)
def test_networks_are_found_in_every_kind_of_checkpoint(kind, tmp_path):
    torch.save(SHAPES_OF_FILES[kind](trained()), tmp_path / "weights.pth")
    assert same(loaded(TINY, tmp_path / "weights.pth"), trained())


def test_a_checkpoint_from_before_torch_1_6_is_read(tmp_path):
    torch.save(trained(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert same(loaded(TINY, tmp_path / "old.pth"), trained())


def test_half_precision_is_loaded_as_float32(tmp_path):
    save_file({name: tensor.half() for name, tensor in trained().items()}, tmp_path / "half.safetensors")
    model = loaded(TINY, tmp_path / "half.safetensors")
    assert {tensor.dtype for tensor in model.values()} == {torch.float32}
    assert torch.equal(model["norm.weight"], trained()["norm.weight"].half().float())


def official_dinov2_registers():
    """As facebookresearch/dinov2 names them: registers by another name, positions with the class token's."""
    name = "vit_small_patch14_reg4_dinov2"
    state = dict(trained(name))
    class_position = torch.randn(1, 1, 384, generator=torch.Generator().manual_seed(2))
    state["register_tokens"] = state.pop("reg_token")
    state["pos_embed"] = torch.cat([class_position, state["pos_embed"]], dim=1)
    state["cls_token"] = state["cls_token"] - class_position
    state["mask_token"] = torch.zeros(1, 384)
    return name, state


def official_dinov3():
    name = "vit_small_patch16_dinov3"
    state = {}
    for key, tensor in trained(name).items():
        renamed = key.replace("reg_token", "storage_tokens")
        renamed = renamed.replace("gamma_1", "ls1.gamma").replace("gamma_2", "ls2.gamma")
        state[renamed] = tensor
    return name, {**state, "mask_token": torch.zeros(1, 384), "rope_embed.periods": torch.zeros(16)}


@pytest.mark.parametrize("official", [official_dinov2_registers, official_dinov3])
def test_official_names_are_understood(official, tmp_path):
    name, state = official()
    torch.save(state, tmp_path / "official.pth")
    model = loaded(name, tmp_path / "official.pth", size=518 if "dinov2" in name else 256)
    expected = trained(name)
    assert model.keys() == expected.keys()
    assert all(torch.allclose(model[key], expected[key], atol=1e-6) for key in expected)


def test_deit3s_layer_scales_are_understood(tmp_path):
    name = "deit3_small_patch16_224"
    state = {key.replace("ls1.gamma", "gamma_1").replace("ls2.gamma", "gamma_2"): t for key, t in trained(name).items()}
    torch.save({"model": state}, tmp_path / "deit3.pth")
    assert same(loaded(name, tmp_path / "deit3.pth"), trained(name))


def test_a_last_norm_of_another_place_is_the_same_norm(tmp_path):
    moved = {
        name.replace("norm.", "fc_norm.") if name.startswith("norm.") else name: t for name, t in trained().items()
    }
    torch.save(moved, tmp_path / "pooled.pth")
    assert same(loaded(TINY, tmp_path / "pooled.pth"), trained())


@pytest.mark.parametrize("size", [(240, 320), (224, 224), (112, 448)])
def test_position_embeddings_are_resampled_once_and_as_asked(size):
    """112×448 has as many patches as 224×224."""
    grid = (size[0] // 16, size[1] // 16)
    table = trained()["pos_embed"]
    ways: list[tuple[Positions, Any]] = [("dino", resample_as_dino), ("timm", resample_as_timm)]
    for positions, resampled in ways:
        model = load_backbone(TINY, trained(), size[0], size[1], positions).model
        assert torch.equal(model.state_dict()["pos_embed"], resampled(table, grid, 1))


def test_dinos_way_works_where_the_class_token_has_no_position(tmp_path):
    name, state = official_dinov2_registers()
    model: Any = load_backbone(name, state, 140, 196, "dino").model
    assert torch.allclose(model.pos_embed, resample_as_dino(trained(name)["pos_embed"], (10, 14), 0), atol=1e-6)


def refusal(weights, name=TINY, size=32):
    with pytest.raises(ConfigError) as refused:
        load_backbone(name, read_weights(name, str(weights))[1], size, size, "timm")
    message = str(refused.value)
    assert "\n" not in message
    return message


def test_another_architecture_is_refused_with_what_differs(tmp_path):
    torch.save(trained("vit_small_patch16_224"), tmp_path / "small.pth")
    message = refusal(tmp_path / "small.pth")
    assert "vit_tiny_patch16_224" in message
    assert "cls_token (1, 1, 384) for (1, 1, 192)" in message
    assert "missing" not in message
    assert "more" in message


def test_missing_and_unexpected_names_are_listed_three_at_most(tmp_path):
    state = {name: tensor for name, tensor in trained().items() if not name.startswith("blocks.3.mlp")}
    state.update({f"extra.{number}.weight": torch.ones(1) for number in range(5)})
    torch.save(state, tmp_path / "odd.pth")
    message = refusal(tmp_path / "odd.pth")
    assert "missing blocks.3.mlp.fc1.weight, blocks.3.mlp.fc1.bias, blocks.3.mlp.fc2.weight and 1 more;" in message
    assert "unexpected extra.0.weight, extra.1.weight, extra.2.weight and 2 more;" in message


@pytest.mark.parametrize("dtype", [torch.int64, torch.int8, torch.bool, torch.complex64])
def test_tensors_that_are_not_of_floats_are_refused(tmp_path, dtype):
    """torch would take them, round what is no number of theirs, and say nothing."""
    state = {name: tensor.to(dtype) if name == "norm.weight" else tensor for name, tensor in trained().items()}
    torch.save(state, tmp_path / "odd.pth")
    assert f"not of floats norm.weight {str(dtype).removeprefix('torch.')};" in refusal(tmp_path / "odd.pth")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_floats_of_another_length_are_taken(tmp_path, dtype):
    torch.save({name: tensor.to(dtype) for name, tensor in trained().items()}, tmp_path / "other.pth")
    expected = {name: tensor.to(dtype).float() for name, tensor in trained().items()}
    assert same(loaded(TINY, tmp_path / "other.pth"), expected)


def test_another_family_is_refused(tmp_path):
    torch.save(timm.create_model("resnet18", pretrained=False).state_dict(), tmp_path / "resnet.pth")
    assert "missing" in refusal(tmp_path / "resnet.pth")


def damaged(tmp_path):
    torch.save(trained(), tmp_path / "whole.pth")
    save_file(trained(), tmp_path / "whole.safetensors")
    torch_bytes, safe_bytes = (tmp_path / "whole.pth").read_bytes(), (tmp_path / "whole.safetensors").read_bytes()
    yield "empty.pth", b""
    yield "empty.safetensors", b""
    yield "half.pth", torch_bytes[: len(torch_bytes) // 2]
    yield "short.pth", torch_bytes[:-1]
    yield "half.safetensors", safe_bytes[: len(safe_bytes) // 2]
    yield "short.safetensors", safe_bytes[:-1]
    yield "header.safetensors", (2**60).to_bytes(8, "little") + b"{" + safe_bytes[9:]
    yield "page.pth", b"<html>404 not found</html>"
    yield "page.safetensors", b"<html>404 not found</html>"
    yield "zip.pth", b"PK\x03\x04" + bytes(100)
    yield "numbers.pth", bytes(range(256)) * 10


def test_damaged_files_are_refused_in_one_sentence(tmp_path):
    for name, data in damaged(tmp_path):
        (tmp_path / name).write_bytes(data)
        message = refusal(tmp_path / name)
        assert str(tmp_path / name) in message


@pytest.mark.parametrize("content", [torch.ones(3), {"epoch": 3}, {"model": {}}, [1, 2]])
def test_files_without_a_network_are_refused(tmp_path, content):
    torch.save(content, tmp_path / "odd.pth")
    assert "odd.pth" in refusal(tmp_path / "odd.pth")


def test_what_is_no_file_is_refused(tmp_path):
    assert "nowhere.pth" in refusal(tmp_path / "nowhere.pth")
    with pytest.raises(MissingArtifact):  # a directory would be a checkpoint artifact
        refusal(tmp_path)


class Payload:
    """Creates a file when it is unpickled by whoever runs what a pickle says."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (pathlib.Path.touch, (self.path,))


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("read", [lambda path: read_weights(TINY, str(path)), convert_weights])
def test_a_file_that_would_run_code_runs_none(tmp_path, is_zip, read):
    made = tmp_path / "made by the payload"
    torch.save(
        {"model": trained(), "args": Payload(made)}, tmp_path / "evil.pth", _use_new_zipfile_serialization=is_zip
    )
    with pytest.raises(ConfigError):
        read(tmp_path / "evil.pth")
    assert not made.exists()
    torch.load(tmp_path / "evil.pth", weights_only=False)
    assert made.exists()  # the payload works where nothing stops it


def training_checkpoint(path):
    torch.save(
        {
            "teacher": {**with_prefix("backbone.", trained()), **DINO_HEAD},
            "args": argparse.Namespace(arch="vit_tiny", out=pathlib.PosixPath("/out")),
            "best": np.float64(0.5),
            "history": np.zeros(3),
            "epoch": 300,
        },
        path,
    )


def test_a_training_checkpoint_is_refused_with_the_way_out(tmp_path):
    training_checkpoint(tmp_path / "training.pth")
    message = refusal(tmp_path / "training.pth")
    assert "argparse.Namespace" in message
    assert f"maskmill weights convert {tmp_path}/training.pth {tmp_path}/training.safetensors" in message


def test_a_converted_checkpoint_keeps_the_tensors_alone(tmp_path):
    training_checkpoint(tmp_path / "training.pth")
    allowed = set(torch.serialization.get_safe_globals())  # torch lists them in any order
    data, met = convert_weights(tmp_path / "training.pth")
    assert {"argparse.Namespace", "pathlib.PosixPath", "numpy.ndarray"} <= set(met)
    (tmp_path / "converted.safetensors").write_bytes(data)
    weights, state = read_weights(TINY, str(tmp_path / "converted.safetensors"))
    assert same(state, trained())
    assert weights.family == "dino"  # by its projection head, which is gone
    with safe_open(tmp_path / "converted.safetensors", framework="pt") as stream:
        assert stream.metadata()["converted_from"] == "training.pth"
    assert convert_weights(tmp_path / "training.pth")[0] == data
    assert set(torch.serialization.get_safe_globals()) == allowed


def test_nothing_but_the_listed_classes_is_converted(tmp_path):
    torch.save({"model": trained(), "when": socket.AddressFamily.AF_INET}, tmp_path / "odd.pth")
    with pytest.raises(ConfigError, match=r"socket\.AddressFamily.*argparse\.Namespace.*no other"):
        convert_weights(tmp_path / "odd.pth")


def test_the_digest_is_the_files_and_is_checked_before_it_is_opened(tmp_path, monkeypatch):
    save_file(trained(), tmp_path / "w.safetensors", metadata={"license": "cc-by-4.0"})
    digest = hashlib.sha256((tmp_path / "w.safetensors").read_bytes()).hexdigest()
    weights = weights_of(TINY, str(tmp_path / "w.safetensors"), digest)
    assert (weights.source, weights.sha256, weights.licence, weights.family) == (
        "w.safetensors",
        digest,
        "cc-by-4.0",
        "unknown",
    )
    monkeypatch.setattr("maskmill.stages.vision.weights.read_checkpoint", lambda path: pytest.fail("it was opened"))
    with pytest.raises(ConfigError, match=digest[:12]):
        weights_of(TINY, str(tmp_path / "w.safetensors"), "0" * 64)


def test_dinos_weights_are_known_by_name(tmp_path):
    torch.save(trained(), tmp_path / "dino_deitsmall8_300ep_pretrain.pth")
    torch.save(trained(), tmp_path / "dinov2_vits14_pretrain.pth")
    torch.save(trained(), tmp_path / "w.pth")
    assert weights_of(TINY, str(tmp_path / "dino_deitsmall8_300ep_pretrain.pth")).family == "dino"
    assert weights_of(TINY, str(tmp_path / "dinov2_vits14_pretrain.pth")).family == "dinov2"
    assert weights_of("vit_small_patch16_224.dino", str(tmp_path / "w.pth")).family == "dino"
    assert weights_of(TINY, str(tmp_path / "dinov2_vits14_pretrain.pth")).licence == "unknown"


def test_random_weights_are_the_seeds_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first, state = read_weights(TINY, "random:3")
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    second, again = read_weights(TINY, "random:3")
    assert first == second
    assert same(state, again)
    assert weights_of(TINY, "random:4").sha256 != first.sha256
    assert (first.source, first.licence, first.family) == ("random:3", "none", "unknown")


@pytest.mark.parametrize("seed", ["", "x", "-1", "1.5", "³", str(2**63)])
def test_a_seed_is_a_whole_number(seed):
    assert_named(refusal(f"random:{seed}"), f"weights random:{seed} seed random:0")


def test_timms_own_weights_offline_are_refused_with_the_remedy(tmp_path, monkeypatch):
    def unreachable(*args, **kwargs):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(socket, "create_connection", unreachable)
    monkeypatch.setattr("urllib.request.getproxies", dict)
    message = refusal("", "vit_small_patch16_224.dino")
    assert "huggingface.co/timm/vit_small_patch16_224.dino" in message
    assert "--weights FILE" in message
    assert "HF_HOME" in message


def test_timms_own_weights_come_from_the_cache_with_their_licence(tmp_path, monkeypatch):
    name = "vit_base_patch16_224.mae"
    save_file({"cls_token": torch.ones(1, 1, 768)}, tmp_path / "model.safetensors")
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: str(tmp_path / "model.safetensors"))
    weights, state = read_weights(name, "")
    assert (weights.source, weights.licence) == ("timm/vit_base_patch16_224.mae", "cc-by-nc-4.0")
    assert weights.sha256 == hashlib.sha256((tmp_path / "model.safetensors").read_bytes()).hexdigest()
    assert state.keys() == {"cls_token"}


def test_a_backbone_without_weights_of_timms_is_refused():
    assert "timm has no weights for" in refusal("", without_weights())


def without_weights() -> str:
    named = set(timm.list_models(pretrained=True))
    return next(name for name in timm.list_models("vit_*") if not any(n.split(".")[0] == name for n in named))


def test_a_file_is_read_with_nothing_said_of_it(tmp_path):
    torch.save(trained(), tmp_path / "plain.pth")
    state, metadata = read_checkpoint(tmp_path / "plain.pth")
    assert metadata == {}
    assert same(state, trained())
