"""Makes the backbone that comes with the package from a larger one, and writes its weights as the package carries them.

The teacher is a ViT-S/14 that was trained to predict saliency masks. The pictures are those of caltech-128 below the
folder that MASKMILL_REFERENCE names, and the teacher's weights lie beside them. Nothing is tuned on the outlined
pictures.

The student begins as the teacher's first five blocks. Its patches are resampled from 14 to 8 pixels, so that it sees
at 128 pixels what the teacher sees at 224. Of each MLP the 640 units with the largest effect are kept; what the others
give on average goes into the bias. These first weights were chosen by a linear map from the student before any training
to the teacher's centred tokens, fitted on 300 of these pictures and judged by its cosine on 100:

| blocks | units | class token | patches |
|---|---|---|---|
| 0–4 | 640 | 0.508 | 0.695 |
| 0–3 | 1,024 | 0.500 | 0.690 |
| 0–5 | 384 | 0.463 | 0.693 |
| 0–2 | 1,536 (all) | 0.464 | 0.662 |
| 0, 5, 10 | 1,536 | 0.413 | 0.614 |

Block 10 of the teacher was chosen because its class tokens tell the folders of these pictures best: 58.5 % by the
nearest centroid of five in 78 folders, against 38.6 % in block 11.

Run: `MASKMILL_REFERENCE=… PYTHONPATH=tests .venv/bin/python tests/benchmarks/distill_builtin.py WORK [FILE]`
It goes on where it was stopped. On a CPU with AMX, OMP_NUM_THREADS=1 and bfloat16 were five times as fast as float32.
FILE is the weights file to write, by default that of the package; builtin_worth.py looks at it.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from safetensors.torch import load, load_file, save, save_file
from timm.layers.patch_embed import resample_patch_embed
from torch import Tensor, nn
from torch.nn.functional import gelu

from maskmill.cli.main import main as maskmill
from maskmill.manifests.artifact.artifact import open_artifact
from maskmill.manifests.artifact.checkpoints import WEIGHTS
from maskmill.manifests.artifact.pixels import open_pixels
from maskmill.stages.vision.backbone import backbone_facts
from maskmill.stages.vision.builtin import BUILTIN, WEIGHTS_FILE, full_backbone_name
from maskmill.stages.vision.fitting import as_input
from maskmill.stages.vision.positions import resample_as_dino

TEACHER, TEACHER_FILE = "vit_small_patch14_dinov2", "weights/vit_small_patch14_saliency.safetensors"
PICTURES_PX, TEACHER_PX, BLOCK = 128, 224, 10
DEPTH, UNITS, PATCH = 5, 640, 8
NUM_DRAWN, NUM_MEASURED = 400, 48  # pictures drawn, and those among them on which the effect of the units is measured
LICENCE = "CC-BY-4.0"
EXTRACT = f"--positions dino --image-size {TEACHER_PX} --fit squash --fields tokens:{BLOCK} --autocast bfloat16"
PRETRAIN = (
    "--distill-loss cosine --global-size 80 --batch 32 --epochs 8 --warmup 1 --learning-rate 4e-3 --momentum 0.99 "
    "--autocast bfloat16"
)
State = Mapping[str, Tensor]


def run(*arguments: object) -> None:
    code = maskmill([str(argument) for argument in arguments])
    if code not in (0, 6):
        sys.exit(code)


def student_block(teacher: State, block: int, place: int, effect: Tensor, mean: Tensor) -> dict[str, Tensor]:
    """A block of the teacher with fewer units, and its layer scales within the weights."""
    theirs, ours = f"blocks.{block}.", f"blocks.{place}."
    same = ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias", "attn.qkv.weight", "attn.qkv.bias")
    state = {ours + name: teacher[theirs + name] for name in same}
    scale = teacher[theirs + "ls1.gamma"]
    state[ours + "attn.proj.weight"] = scale[:, None] * teacher[theirs + "attn.proj.weight"]
    state[ours + "attn.proj.bias"] = scale * teacher[theirs + "attn.proj.bias"]
    into, out, bias, scale = (
        teacher[theirs + name] for name in ("mlp.fc1.weight", "mlp.fc2.weight", "mlp.fc2.bias", "ls2.gamma")
    )
    is_kept = torch.zeros(len(into), dtype=torch.bool)
    is_kept[(effect * out.norm(dim=0)).topk(UNITS).indices] = True
    state[ours + "mlp.fc1.weight"] = into[is_kept]
    state[ours + "mlp.fc1.bias"] = teacher[theirs + "mlp.fc1.bias"][is_kept]
    state[ours + "mlp.fc2.weight"] = scale[:, None] * out[:, is_kept]
    state[ours + "mlp.fc2.bias"] = scale * (bias + out[:, ~is_kept] @ mean[~is_kept])
    return state


def first_weights(teacher: State, pictures: Tensor) -> dict[str, Tensor]:
    """The teacher's first blocks as a student of BUILTIN's architecture."""
    units = measure_units(teacher, pictures)
    state = stem_of(teacher) | {name: teacher[name] for name in ("norm.weight", "norm.bias")}
    for block in range(DEPTH):
        state |= student_block(teacher, block, block, *units[block])
    return {name: value.contiguous() for name, value in state.items()}


def stem_of(teacher: State) -> dict[str, Tensor]:
    side = PICTURES_PX // PATCH
    return {
        "cls_token": teacher["cls_token"],
        "pos_embed": resample_as_dino(teacher["pos_embed"], (side, side), 1),
        "patch_embed.proj.weight": resample_patch_embed(teacher["patch_embed.proj.weight"], [PATCH, PATCH]),
        "patch_embed.proj.bias": teacher["patch_embed.proj.bias"],
    }


@torch.inference_mode()
def measure_units(teacher: State, pictures: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Deviation and mean of each unit of the MLPs of the teacher, with patches of PATCH pixels."""
    model: Any = timm.create_model(TEACHER, num_classes=0, img_size=PICTURES_PX, patch_size=PATCH)
    model.load_state_dict({**teacher, **stem_of(teacher)}, strict=False)
    units: list[tuple[Tensor, Tensor]] = []

    def note(module: nn.Module, given: object, values: Tensor) -> None:
        active = gelu(values.float()).flatten(0, 1)
        units.append((active.std(dim=0), active.mean(dim=0)))

    for block in model.blocks:
        block.mlp.fc1.register_forward_hook(note)
    with torch.autocast("cpu", torch.bfloat16):
        model.eval().forward_features(pictures)
    return units


def published_weights(checkpoint: bytes) -> dict[str, Tensor]:
    """In half precision, and without the bias of the keys: attention does not depend on it, but cosines of keys do."""
    state = load(checkpoint)
    for name, value in state.items():
        if name.endswith("attn.qkv.bias"):
            width = len(value) // 3
            value[width : 2 * width] = 0
    return {name: value.to(torch.float16) for name, value in state.items()}


def main(work: Path, file: Path) -> None:
    reference = Path(os.environ["MASKMILL_REFERENCE"])
    weights = reference / TEACHER_FILE
    run("index", "folder", reference / "data/caltech-128", "--out", work / "images")
    run("pixels", work / "images", "--image-size", PICTURES_PX, "--fit", "squash", "--out", work / "pixels")
    teacher = ["--backbone", TEACHER, "--weights", weights, *EXTRACT.split()]
    run("extract", work / "images", *teacher, "--out", work / "teacher")
    if not (first := work / "first.safetensors").exists():
        pixels, facts = (
            open_pixels(work / "pixels"),
            backbone_facts(full_backbone_name(BUILTIN), PICTURES_PX, PICTURES_PX),
        )
        rows = np.sort(np.random.default_rng(0).permutation(len(pixels))[:NUM_DRAWN])[:NUM_MEASURED]
        pictures = as_input(torch.from_numpy(pixels.at(rows)), facts.mean, facts.std)
        save_file(first_weights({name: value.float() for name, value in load_file(weights).items()}, pictures), first)
    asked = ["--backbone", BUILTIN, "--distill", work / "teacher", "--distill-block", BLOCK, "--initial-weights", first]
    run("pretrain", work / "pixels", *asked, *PRETRAIN.split(), "--licence", LICENCE, "--out", work / "backbone")
    checkpoint = open_artifact(str(work / "backbone"), "checkpoint")
    metadata = {
        "family": "builtin",
        "licence": LICENCE,
        "teacher": f"{weights.name}: a ViT-S/14 trained for saliency, tokens of block {BLOCK}",
        "data": "Caltech-101, doi 10.22002/D1.20086, CC BY 4.0; 7,183 pictures",
        "command": f"maskmill pretrain pixels --distill teacher --distill-block {BLOCK} {PRETRAIN}",
    }
    file.write_bytes(save(published_weights(checkpoint.file(WEIGHTS)), metadata))
    print(f"{file}: {file.stat().st_size / 1e6:.1f} MB")
    print(checkpoint.file("metrics.jsonl").decode().splitlines()[-1])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path([*sys.argv[2:], str(WEIGHTS_FILE)][0]))
