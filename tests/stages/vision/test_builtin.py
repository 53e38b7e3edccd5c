"""The backbone that comes with the package: what it is, how it is found, and that it has learned something."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors import safe_open

from builders.configs import make_config
from maskmill.manifests.artifact.tokens import Tokens, open_tokens
from maskmill.manifests.datasets.layouts import FolderSource
from maskmill.pipeline.running.run import run
from maskmill.stages.extract.config import ExtractConfig
from maskmill.stages.extract.stage import STAGE as EXTRACT
from maskmill.stages.index.config import IndexConfig
from maskmill.stages.index.stage import STAGE as INDEX
from maskmill.stages.pretrain.config import PretrainConfig
from maskmill.stages.vision.builtin import BUILTIN, NAME, WEIGHTS_FILE
from maskmill.stages.vision.weights import read_weights

SHOTS, OTHERS, DRAWS = 5, 25, 10


def test_it_is_small_and_half_precise():
    assert WEIGHTS_FILE.stat().st_size <= 12e6
    with safe_open(WEIGHTS_FILE, "pt") as stored:
        tensors = [stored.get_tensor(name) for name in stored.keys()]  # noqa: SIM118 — no mapping
    assert {tensor.dtype for tensor in tensors} == {torch.float16}
    assert sum(tensor.numel() for tensor in tensors) <= 5.9e6
    assert all(tensor.isfinite().all() for tensor in tensors)


def test_timm_knows_it_and_loads_it():
    model: Any = timm.create_model(NAME, pretrained=True)
    assert (model.embed_dim, model.patch_embed.patch_size) == (384, (8, 8))
    weights, state = read_weights(NAME, "")
    assert (weights.source, weights.licence, weights.family) == (NAME, "CC-BY-4.0", "builtin")
    found = model.state_dict()
    assert found.keys() == state.keys()
    of_size = state.pop("pos_embed")  # stored as it was learned, resampled to what is asked for
    assert (of_size.shape, found["pos_embed"].shape) == ((1, 1 + 10 * 10, 384), (1, 1 + 16 * 16, 384))
    assert all(torch.equal(found[name], tensor.float()) for name, tensor in state.items())


def test_one_word_means_it_everywhere():
    in_full, in_short = (make_config(ExtractConfig, backbone=name, image_size=(64, 64)) for name in (NAME, BUILTIN))
    assert in_full == in_short
    assert in_short.backbone == make_config(PretrainConfig, backbone=BUILTIN).backbone == NAME


def tokens_with(tmp_path: Path, weights: str) -> Tokens:
    out = str(tmp_path / (weights.replace(":", "-") or "own"))
    config = make_config(
        ExtractConfig, backbone=BUILTIN, weights=weights, image_size=(48, 48), fields=("tokens:last",), dtype="float32"
    )
    run(EXTRACT, config, {"images": str(tmp_path / "images")}, out)
    return open_tokens(out)


def right_share(tokens: Tokens) -> float:
    """Of the pictures beside five of a class, those whose nearest centroid is their class's own; the mean of draws."""
    ids = tokens.rows.column("id").to_pylist()
    classes = np.array([name.partition("/")[0] for name in ids])
    cls_ND = np.asarray(tokens.read("tokens", ids))[:, -1, 0]
    unit_ND = cls_ND / np.linalg.norm(cls_ND, axis=1, keepdims=True)
    shares = []
    for draw in range(DRAWS):
        order = np.random.default_rng(draw).permutation(len(ids))
        places = {name: order[classes[order] == name] for name in sorted(set(classes.tolist()))}
        centroids_CD = np.stack([unit_ND[own[:SHOTS]].mean(axis=0) for own in places.values()])
        others = np.concatenate([own[SHOTS:] for own in places.values()])
        nearest = np.array(list(places))[(unit_ND[others] @ centroids_CD.T).argmax(axis=1)]
        shares.append((nearest == classes[others]).mean())
    return float(np.mean(shares))


@pytest.mark.slow
def test_it_tells_classes_apart_that_the_same_network_untrained_does_not(tmp_path, reference):
    """Pictures that it was not trained on, at one shape, as in others the shape tells too."""
    for folder in sorted((reference / "data/caltech-outlines/images").iterdir()):
        (tmp_path / "pictures" / folder.name).mkdir(parents=True)
        for path in sorted(folder.iterdir())[: SHOTS + OTHERS]:
            Image.open(path).resize((64, 64)).save(tmp_path / "pictures" / folder.name / path.name)
    run(INDEX, IndexConfig(source=FolderSource(root=str(tmp_path / "pictures"))), {}, str(tmp_path / "images"))
    trained, untrained = (right_share(tokens_with(tmp_path, weights)) for weights in ("", "random:0"))
    assert trained > untrained + 0.02, (trained, untrained)
