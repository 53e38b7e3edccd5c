"""Few-shot learners that have learned nothing, and two dozen small pictures with masks to judge them on, in seconds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save

from builders.configs import make_command, make_config
from maskmill.manifests.artifact.checkpoints import SEEN, WEIGHTS, training_ids_json
from maskmill.manifests.artifact.tokens import open_tokens
from maskmill.manifests.artifact.underway import Underway
from maskmill.manifests.datasets.layouts import TableSource
from maskmill.pipeline.running.options import RunOptions
from maskmill.pipeline.running.run import run
from maskmill.pipeline.running.whole import run_whole
from maskmill.stages.extract.config import ExtractConfig
from maskmill.stages.extract.stage import STAGE as EXTRACT
from maskmill.stages.index.config import IndexConfig
from maskmill.stages.index.stage import STAGE as INDEX
from maskmill.stages.stage import Findings, Inputs, WholeStage
from maskmill.stages.students.features import Cached
from maskmill.stages.students.learner import Learner
from maskmill.stages.students.official import official_state

BACKBONE, SIZE = "test_vit.r160_in1k", (64, 64)  # 4 × 4 patches, 2 heads, 6 blocks
CLASSES = ("ant", "bee", "cat", "dog", "eel", "fox")
FIELDS = ("tokens:all", "support_tokens:all", "keys", "cls_query")
BASE, NOVEL = CLASSES[:3], CLASSES[3:]


def shown(number: int) -> tuple[str, ...]:
    """Every class is in six of two dozen pictures, every third time with another one."""
    first = CLASSES[number % 6]
    return (first, CLASSES[(number + 1) % 6]) if number % 3 == 2 else (first,)


def mask_of(number: int) -> np.ndarray:
    """A rectangle of each class, the last over the first, and some void."""
    generator = np.random.default_rng(number)
    height, width = 20 + number % 7, 18 + (3 * number) % 11
    label_HW = np.zeros((height, width), np.uint8)
    label_HW[:2] = 255
    for name in shown(number):
        top, left = generator.integers(2, [height - 9, width - 9])
        label_HW[top : top + 9, left : left + 8] = CLASSES.index(name) + 1
    return label_HW


def write_images(
    home: Path, masks: Mapping[int, np.ndarray] | None = None, out: str = "images", paint: int = 7
) -> None:
    """An index of two dozen pictures in which each class has a colour; `masks` are those that are others here."""
    lines = ["path,labels,mask"]
    (home / out).parent.mkdir(parents=True, exist_ok=True)
    folder = home / f"{out}-pictures"
    folder.mkdir()
    for number in range(24):
        label_HW = mask_of(number)
        noise_HW3 = np.random.default_rng(number).integers(0, 60, (*label_HW.shape, 3), dtype=np.uint8)
        colour_HW3 = np.array([[0] * 3, *np.random.default_rng(paint).integers(60, 190, (6, 3))], np.uint8)
        picture_HW3 = noise_HW3 + colour_HW3[np.where(label_HW == 255, 0, label_HW)]
        Image.fromarray(picture_HW3).save(folder / f"p{number:02d}.png")
        Image.fromarray((masks or {}).get(number, label_HW)).save(folder / f"p{number:02d}-mask.png")
        lines.append(f"p{number:02d}.png,{'|'.join(shown(number))},p{number:02d}-mask.png")
    (folder / "table.csv").write_text("\n".join(lines) + "\n")
    config = IndexConfig(source=TableSource(file=str(folder / "table.csv"), classes=CLASSES))
    run(INDEX, config, {}, str(home / out), RunOptions())


def write_tokens(home: Path, out: str = "tokens", weights: str = "random:0", fields: Sequence[str] = FIELDS) -> None:
    config = make_config(
        ExtractConfig, backbone=BACKBONE, weights=weights, image_size=SIZE, fit="squash", fields=fields
    )
    run(EXTRACT, config, {"images": str(home / "images")}, str(home / out), RunOptions())


def small_learner(channels: int, seed: int = 0) -> Learner:
    """Norms begin with 1 and 0, which would make all pictures alike."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        learner = Learner(channels)
        for name, parameter in learner.named_parameters():
            if "norm" in name or parameter.ndim == 1:
                torch.nn.init.normal_(parameter, mean=0.3, std=0.6)
    return learner


@torch.no_grad()
def decide(learner: Learner, features: Cached) -> None:
    """Half of what it says is yes: by far, or rounding would tell decisions apart."""
    read = features.read([f"p{number:02d}" for number in range(24)], ("tokens", "support_tokens")).fields
    sight = features.sight
    tokens, supports = read["tokens"].float(), read["support_tokens"].float().roll(1, 0)
    logits = learner.forward_tokens(tokens, supports, None, sight.grid, sight.heads)
    for head, found in ((learner.presence, logits.presence), (learner.segmentation, logits.segmentation)):
        margin = found[:, 1] - found[:, 0]
        last = head[-1]
        assert isinstance(last, torch.nn.Conv2d)
        assert last.bias is not None
        scale = 1 / margin.std()
        last.weight *= scale
        last.bias *= scale
        last.bias[1] -= scale * margin.median()


@dataclass(frozen=True, slots=True, kw_only=True)
class UntaughtConfig:
    classes: tuple[str, ...] = BASE
    seed: int = 0
    channels: int = 0  # as many as the tokens have
    seen: tuple[str, ...] = ()
    stopped_on: tuple[str, ...] = ()
    supervision: str = "pseudo"
    select: str = "last"


def untaught(config: UntaughtConfig, inputs: Inputs, underway: Underway) -> Findings:
    """What `train --student cst` writes, without training."""
    features = Cached(open_tokens(inputs["tokens"].place), ("tokens", "support_tokens"))
    sight = features.sight
    learner = small_learner(config.channels or sight.channels, config.seed)
    if not config.channels:
        decide(learner, features)
    stopped_on = list(config.stopped_on)
    files = {
        WEIGHTS: save(official_state(learner)),
        SEEN: training_ids_json(list(config.seen), stopped_on, [], stopped_on),
    }
    facts = {
        "kind": "student",
        "student": "cst",
        "supervision": config.supervision,
        "select": config.select,
        "classes": [CLASSES.index(name) + 1 for name in config.classes],
        "class_table": [{"index": index, "name": name} for index, name in enumerate(CLASSES, 1)],
        "sight": sight.as_json(),
    }
    return Findings(files, facts)


UNTAUGHT = WholeStage(
    command=make_command("untaught", "checkpoint", UntaughtConfig, {"tokens": "tokens"}),
    code_version=1,
    compute=untaught,
    reads=lambda config, inputs: {"tokens": ("tokens", "support_tokens")},
)


def write_checkpoint(home: Path, out: str = "student", tokens: str = "tokens", **asked: object) -> None:
    config = UntaughtConfig(**asked)  # type: ignore[arg-type]
    run_whole(UNTAUGHT, config, {"tokens": str(home / tokens)}, str(home / out))
