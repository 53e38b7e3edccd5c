"""Stored pictures to pretrain on in seconds, and the command that does it.

As a program it is what torchrun starts: HOME, a folder with stored pictures. Each of the CASES is a command as a user
would give it, in which one process may meet with something; what every process answered is left in HOME/answers.
"""

import contextlib
import io
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch.distributed import PrefixStore  # type: ignore[attr-defined]

from builders import small_runs
from builders.small_dataset import write_dataset
from maskmill.cli.main import main
from maskmill.manifests.artifact.artifact import open_artifact
from maskmill.manifests.files import torchrun
from maskmill.pipeline.running.run import run
from maskmill.stages.learning.lesson import Losses
from maskmill.stages.pixels.config import PixelsConfig
from maskmill.stages.pixels.stage import STAGE as PIXELS
from maskmill.stages.pretrain.teaching import Teaching

PICTURES, BATCH = 26, 8  # three steps an epoch
SMALL = {
    "backbone": "test_vit.r160_in1k",  # patches of 16 pixels
    "global-size": 32,
    "local-size": 16,
    "local-views": 2,
    "clusters": 16,
    "hidden": 24,
    "epochs": 2,
    "warmup": 0,
    "batch": BATCH,
    "seed": 3,
}
# Between them everything that looks across a batch, with and without patches whose number differs by process.
RECIPES: dict[str, dict[str, Any]] = {
    "balanced": {"losses": "cls,patch,contrastive", "avoidance": "sinkhorn+me-max", "patches": "masked"},
    "centred": {"losses": "cls,patch,reconstruction", "avoidance": "centering", "learning-rate": 0.05},
}


def write_home(home: Path) -> Path:
    small_runs.index(write_dataset(home / "pictures", PICTURES), home / "images")
    run(PIXELS, PixelsConfig(image_size=(40, 40)), {"images": str(home / "images")}, str(home / "pixels"))
    return home


def command(home: Path, out: str, recipe: str = "centred", **options: Any) -> list[str]:
    asked = {**SMALL, **RECIPES[recipe], **options, "out": home / out}
    return ["pretrain", str(home / "pixels"), *(str(word) for n, v in asked.items() for word in (f"--{n}", v))]


def metrics(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in open_artifact(str(out)).file("metrics.jsonl").splitlines()]


@contextlib.contextmanager
def met(process: int, at: int, act: Callable[[Losses], Losses]) -> Iterator[None]:
    """What one process's losses of a step become."""
    losses = Teaching.losses

    def changed(self: Teaching, step: int, pictures: Any) -> Losses:
        found = losses(self, step, pictures)
        return act(found) if (step, torchrun.number()) == (at, process) else found

    with mock.patch.object(Teaching, "losses", changed):
        yield


def poisoned(losses: Losses) -> Losses:
    return Losses(losses.total * torch.nan, losses.parts)


def told_to_end(losses: Losses) -> Losses:
    os.kill(os.getpid(), signal.SIGTERM)
    return losses


def stopped_alone(home: Path, out: str) -> None:
    """One process, until a step is done: the others find where it was."""
    with met(0, 2, told_to_end):
        assert main(command(home, out)) == 143


Case = tuple[list[str], contextlib.AbstractContextManager[None]]


def cases(home: Path) -> dict[str, Case]:
    nothing = contextlib.nullcontext()
    return {
        "balanced": (command(home, "balanced-2", "balanced"), nothing),
        "centred": (command(home, "centred-2"), nothing),
        "again": (command(home, "centred-2"), nothing),
        "indivisible": (command(home, "none", batch=9), nothing),
        "mistaken": (command(home, "none", losses="mim"), nothing),
        "other config": (command(home, "centred-2", seed=4), nothing),
        "other command": (["status", str(home / "pixels")], nothing),
        "not finite": (command(home, "poisoned"), met(1, 4, poisoned)),
        "told to end": (command(home, "ended-by-2"), met(1, 3, told_to_end)),
        "gone on with": (command(home, "begun-by-1"), nothing),
    }


def answered(arguments: Sequence[str], number: int) -> dict[str, Any]:
    """With a word of the first of its own: torchrun starts processes for one command."""
    said, warned = io.StringIO(), io.StringIO()
    store = PrefixStore(str(number), torchrun.store())
    with (
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(warned),
        mock.patch.object(torchrun, "store", return_value=store),
    ):
        try:
            code = main(list(arguments))
        except SystemExit as ended:
            code = int(ended.code or 0)
    return {"code": code, "out": said.getvalue(), "err": warned.getvalue()}


def answer_all(home: Path) -> None:
    if torchrun.number() == 0:
        (home / "answers").mkdir()
    for number, (name, (arguments, meeting)) in enumerate(cases(home).items()):
        with meeting:
            answer = answered(arguments, number)
        (home / "answers" / f"{name}-{torchrun.number()}.json").write_text(json.dumps(answer))


if __name__ == "__main__":
    answer_all(Path(sys.argv[1]))
