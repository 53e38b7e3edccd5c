"""Makes the backbone that comes with the package from a larger one, and writes its weights as the package carries them.

The teacher is a ViT-S/14 that was trained to predict saliency masks. The pictures are those of caltech-128 below the
folder that MASKMILL_REFERENCE names, and the teacher's weights lie beside them. Nothing is tuned on the outlined
pictures.

The student begins as the teacher's first four blocks. Its patches are resampled from 14 to 8 pixels, so that it sees
at 128 pixels what the teacher sees at 224. Of each MLP the 704 units with the largest effect are kept; what the others
give on average goes into the bias. First weights were compared by a linear map from the student before any training to
the teacher's centred tokens, fitted on 300 of these pictures and judged by its cosine on 100:

| blocks | units | class token | patches |
|---|---|---|---|
| 0–4 | 640 | 0.508 | 0.695 |
| 0–3 | 1,024 | 0.500 | 0.690 |
| 0–5 | 384 | 0.463 | 0.693 |
| 0–2 | 1,536 (all) | 0.464 | 0.662 |
| 0, 5, 10 | 1,536 | 0.413 | 0.614 |

A fifth block is added after training. It passes all tokens on unchanged and is only read: its queries of the class
token and its keys are linear in the student's tokens. They are fitted to those of the teacher's last block, which
follow from the stored tokens of the block before. Without it the student's own last keys make no masks: mIoU of `cst`
on voc-mini was 0.063 after one epoch, and 0.267 with it.

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
from timm.models import register_model
from timm.models.vision_transformer import checkpoint_filter_fn
from torch import Tensor, nn
from torch.nn.functional import gelu

from maskmill.cli.main import main as maskmill
from maskmill.manifests.artifact.artifact import open_artifact
from maskmill.manifests.artifact.checkpoints import WEIGHTS
from maskmill.manifests.artifact.pixels import Pixels, open_pixels
from maskmill.manifests.artifact.tokens import open_tokens
from maskmill.stages.vision.backbone import backbone_facts
from maskmill.stages.vision.builtin import BUILTIN, WEIGHTS_FILE, full_backbone_name
from maskmill.stages.vision.fitting import as_input
from maskmill.stages.vision.positions import resample_as_dino

TEACHER, TEACHER_FILE = "vit_small_patch14_dinov2", "weights/vit_small_patch14_saliency.safetensors"
PICTURES_PX, TEACHER_PX, BLOCK = 128, 224, 10
DEPTH, UNITS, WIDTH, PATCH = 4, 704, 384, 8
STUDENT = "maskmill_student_d4"
NUM_FITTED, AT_ONCE = 2000, 200  # pictures that the last block is fitted on
KEY_RIDGE, QUERY_RIDGE = 1e-3, 3e-2  # shares of the mean variance of the student's tokens
NUM_DRAWN, NUM_MEASURED = 400, 48  # pictures drawn, and those among them on which the effect of the units is measured
LICENCE = "CC-BY-4.0"
EXTRACT = f"--positions dino --image-size {TEACHER_PX} --fit squash --fields tokens:{BLOCK} --autocast bfloat16"
PRETRAIN = (
    "--distill-loss cosine --global-size 80 --batch 32 --epochs 8 --warmup 1 --learning-rate 4e-3 --momentum 0.99 "
    "--autocast bfloat16"
)
METADATA = {
    "family": "builtin",
    "licence": LICENCE,
    "teacher": f"{Path(TEACHER_FILE).name}: a ViT-S/14 trained for saliency, tokens of block {BLOCK}",
    "data": "Caltech-101, doi 10.22002/D1.20086, CC BY 4.0; 7,183 pictures, 5 % of them held out",
    "command": f"maskmill pretrain pixels --distill teacher --distill-block {BLOCK} {PRETRAIN}",
}
State = Mapping[str, Tensor]


@register_model
def maskmill_student_d4(pretrained: bool = False, **options: Any) -> Any:
    """The built-in backbone without its last block."""
    return create_builtin(depth=DEPTH, **options)


def create_builtin(**options: Any) -> Any:
    return timm.create_model(full_backbone_name(BUILTIN), pretrained=False, **options)


def run(*arguments: object) -> None:
    code = maskmill([str(argument) for argument in arguments])
    if code not in (0, 6):
        sys.exit(code)


def inputs_of(pixels: Pixels, rows: np.ndarray) -> Tensor:
    facts = backbone_facts(full_backbone_name(BUILTIN), PICTURES_PX, PICTURES_PX)
    return as_input(torch.from_numpy(pixels.at(rows)), facts.mean, facts.std)


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


@torch.inference_mode()
def fit_last_block(student: State, teacher: State, work: Path) -> dict[str, Tensor]:
    """Queries and keys of the teacher's last block, as linear maps of the student's tokens; all else is 0."""
    model = create_builtin(depth=DEPTH, img_size=PICTURES_PX).eval()
    model.load_state_dict(checkpoint_filter_fn(dict(student), model))
    pixels, tokens = open_pixels(work / "pixels"), open_tokens(work / "teacher")
    rows = np.sort(np.random.default_rng(1).permutation(len(pixels))[:NUM_FITTED])
    of_keys, of_queries = Ridge(WIDTH, WIDTH), Ridge(WIDTH + 1, WIDTH)
    for start in range(0, len(rows), AT_ONCE):
        chosen = rows[start : start + AT_ONCE]
        with torch.autocast("cpu", torch.bfloat16):
            seen = model.forward_features(inputs_of(pixels, chosen)).float()
        block = tokens.blocks("tokens").index(BLOCK)
        stored = torch.from_numpy(tokens.at("tokens", chosen.tolist())[:, block]).float()
        queries, keys = last_queries_and_keys(teacher, stored)
        of_keys.add(seen[:, 1:].flatten(0, 1), keys.flatten(0, 1))
        of_queries.add(torch.cat([seen[:, 0], torch.ones(len(seen), 1)], dim=1), queries)
    to_query = of_queries.solve(QUERY_RIDGE)
    return last_block(student, to_query[:, :-1], to_query[:, -1], of_keys.solve(KEY_RIDGE))


def last_queries_and_keys(teacher: State, stored: Tensor) -> tuple[Tensor, Tensor]:
    """Of the class token and of the patches, without the keys' bias. The stored tokens have the last norm, which is
    undone."""
    plain = (stored - teacher["norm.bias"]) / teacher["norm.weight"]
    given = plain * teacher["blocks.11.norm1.weight"] + teacher["blocks.11.norm1.bias"]
    weight, bias = teacher["blocks.11.attn.qkv.weight"], teacher["blocks.11.attn.qkv.bias"]
    return given[:, 0] @ weight[:WIDTH].T + bias[:WIDTH], given[:, 1:] @ weight[WIDTH : 2 * WIDTH].T


def last_block(student: State, to_query: Tensor, query_bias: Tensor, to_key: Tensor) -> dict[str, Tensor]:
    name, none = f"blocks.{DEPTH}.", torch.zeros(WIDTH, WIDTH)
    return {
        f"{name}norm1.weight": student["norm.weight"],
        f"{name}norm1.bias": student["norm.bias"],
        f"{name}attn.qkv.weight": torch.cat([to_query, to_key, none]),
        f"{name}attn.qkv.bias": torch.cat([query_bias, none[0], none[0]]),
        f"{name}attn.proj.weight": none,
        f"{name}attn.proj.bias": none[0],
        f"{name}norm2.weight": torch.ones(WIDTH),
        f"{name}norm2.bias": none[0],
        f"{name}mlp.fc1.weight": torch.zeros(UNITS, WIDTH),
        f"{name}mlp.fc1.bias": torch.zeros(UNITS),
        f"{name}mlp.fc2.weight": torch.zeros(WIDTH, UNITS),
        f"{name}mlp.fc2.bias": none[0],
    }


class Ridge:
    """A linear map fitted part by part."""

    def __init__(self, given: int, wanted: int) -> None:
        self.squares = torch.zeros(given, given, dtype=torch.float64)
        self.products = torch.zeros(given, wanted, dtype=torch.float64)

    def add(self, given: Tensor, wanted: Tensor) -> None:
        self.squares += given.double().T @ given.double()
        self.products += given.double().T @ wanted.double()

    def solve(self, share: float) -> Tensor:
        """Wanted × given."""
        ridge = share * self.squares.diagonal().mean() * torch.eye(len(self.squares), dtype=torch.float64)
        return torch.linalg.solve(self.squares + ridge, self.products).T.float()


def main(work: Path, file: Path) -> None:
    reference = Path(os.environ["MASKMILL_REFERENCE"])
    weights = reference / TEACHER_FILE
    run("index", "folder", reference / "data/caltech-128", "--out", work / "images")
    run("pixels", work / "images", "--image-size", PICTURES_PX, "--fit", "squash", "--out", work / "pixels")
    teacher = ["--backbone", TEACHER, "--weights", weights, *EXTRACT.split()]
    run("extract", work / "images", *teacher, "--out", work / "teacher")
    theirs = {name: value.float() for name, value in load_file(weights).items()}
    if not (first := work / "first.safetensors").exists():
        pixels = open_pixels(work / "pixels")
        rows = np.sort(np.random.default_rng(0).permutation(len(pixels))[:NUM_DRAWN])[:NUM_MEASURED]
        save_file(first_weights(theirs, inputs_of(pixels, rows)), first)
    asked = ["--backbone", STUDENT, "--distill", work / "teacher", "--distill-block", BLOCK, "--initial-weights", first]
    run("pretrain", work / "pixels", *asked, *PRETRAIN.split(), "--licence", LICENCE, "--out", work / "backbone")
    checkpoint = open_artifact(str(work / "backbone"), "checkpoint")
    student = load(checkpoint.file(WEIGHTS))
    state = student | fit_last_block(student, theirs, work)
    file.write_bytes(save({name: value.to(torch.float16) for name, value in state.items()}, METADATA))
    print(f"{file}: {file.stat().st_size / 1e6:.1f} MB")
    print(checkpoint.file("metrics.jsonl").decode().splitlines()[-1])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path([*sys.argv[2:], str(WEIGHTS_FILE)][0]))
