"""A training as a whole stage runs it: stopped anywhere and gone on with, it is the one that was never stopped."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from torch import nn

from builders.configs import make_command
from builders.small_dataset import tree
from maskmill.manifests.artifact.artifact import open_artifact
from maskmill.manifests.artifact.underway import Underway
from maskmill.manifests.errors import Diverged, StaleArtifact
from maskmill.manifests.files.place import place
from maskmill.pipeline.answers.verify import verify
from maskmill.pipeline.running.whole import run_whole
from maskmill.stages.learning import loop
from maskmill.stages.learning.lesson import Batch, Lesson, Losses
from maskmill.stages.learning.loop import Course, train
from maskmill.stages.learning.schedules import Schedule
from maskmill.stages.stage import Findings, Inputs, WholeStage

STEPS = 12


class Stopped(BaseException):
    """As a kill: nothing catches it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LineConfig:
    rate: float = 0.1
    seed: int = 1
    poisoned: int = -1  # the step whose batch holds a NaN
    stopped: int = -1


steps_seen: list[int] = []


def lesson_of(config: LineConfig, stop: type[BaseException] = Stopped) -> Lesson:
    """A line through noisy points, with dropout, and an average of the line that follows it."""
    torch.manual_seed(config.seed)
    line, average = nn.Linear(4, 1), nn.Linear(4, 1)
    model = nn.Sequential(nn.Dropout(0.3), line)

    def batch(step: int) -> Batch:
        points = torch.from_numpy(np.random.default_rng([config.seed, step]).normal(size=(3, 4)).astype(np.float32))
        if step == config.poisoned:
            points[1] = math.nan
        return Batch(3, {"points": points}, lambda: [f"row-{step}-{number}" for number in range(3)])

    def losses(step: int, batch: Batch) -> Losses:
        if step == config.stopped:
            raise stop
        steps_seen.append(step)
        points = batch.tensors["points"]
        error = (model(points)[:, 0] - points.sum(dim=1)).square().mean()
        size = line.weight.square().sum()
        return Losses(error + 0.01 * size, {"error": error, "size": size})

    def follow(step: int) -> None:
        with torch.no_grad():
            for slow, fast in zip(average.parameters(), line.parameters(), strict=True):
                slow.lerp_(fast, 0.5)

    return Lesson(
        modules={"model": model, "average": average},
        optimiser=torch.optim.AdamW(model.parameters(), weight_decay=0.1),
        batch=batch,
        losses=losses,
        after=follow,
        watch=lambda step: {"watched": step},
        learning_rate=Schedule(start=config.rate, end=0.0, steps=STEPS, warmup=3),
        weight_decay=Schedule(start=0.1, end=0.4, steps=STEPS),
        clip=1.0,
    )


def compute(config: LineConfig, inputs: Inputs, underway: Underway, stop: type[BaseException] = Stopped) -> Findings:
    lesson = lesson_of(config, stop)
    lines = train(lesson, Course(steps=STEPS, steps_per_epoch=4, seed=config.seed), underway)
    state = {f"{name}.{key}": v for name, m in lesson.modules.items() for key, v in m.state_dict().items()}
    return Findings({"weights.safetensors": save(state), "metrics.jsonl": "\n".join(lines).encode()})


LINE = WholeStage(command=make_command("line", "checkpoint", LineConfig, {}), code_version=1, compute=compute)


def run(out: Path, config: LineConfig | None = None, stop: type[BaseException] = Stopped) -> None:
    """A run that may be told to stop without that being another configuration."""
    config = config or LineConfig()
    told = replace(LINE, compute=lambda _, inputs, underway: compute(config, inputs, underway, stop))
    run_whole(told, replace(config, stopped=-1, poisoned=-1), {}, str(out))


@pytest.fixture(autouse=True)
def kept_at_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "KEEP_EVERY_S", -1.0)
    monkeypatch.setattr(loop, "LOG_EVERY_S", -1.0)
    steps_seen.clear()


@pytest.fixture
def never_stopped(tmp_path: Path) -> Path:
    run(tmp_path / "never")
    steps_seen.clear()
    return tmp_path / "never"


def logged(out: Path, event: str) -> list[Mapping[str, Any]]:
    lines = [json.loads(line) for path in (out / "log").iterdir() for line in path.read_text().splitlines()]
    return [line for line in lines if line["event"] == event]


@pytest.mark.parametrize("stops", [(0,), (1,), (5,), (11,), (2, 3, 9)])
def test_stopped_and_gone_on_with_is_never_stopped(tmp_path: Path, never_stopped: Path, stops: tuple[int, ...]) -> None:
    for stop in stops:
        with pytest.raises(Stopped):
            run(tmp_path / "out", LineConfig(stopped=stop))
    run(tmp_path / "out")
    assert steps_seen == list(range(STEPS)), "no step is done again"
    assert tree(tmp_path / "out") == tree(never_stopped)
    assert verify(str(tmp_path / "out")).exit_code == 0


def test_a_stop_between_checkpoints_costs_what_came_after_the_last(
    tmp_path: Path, never_stopped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Stopped):
        run(tmp_path / "out", LineConfig(stopped=5))
    monkeypatch.setattr(loop, "KEEP_EVERY_S", math.inf)
    with pytest.raises(Stopped):
        run(tmp_path / "out", LineConfig(stopped=8))
    steps_seen.clear()
    run(tmp_path / "out")
    assert steps_seen == list(range(5, STEPS))
    assert tree(tmp_path / "out") == tree(never_stopped)


def test_ctrl_c_keeps_where_it_is(tmp_path: Path, never_stopped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "KEEP_EVERY_S", math.inf)
    for stop in (5, 9):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "out", LineConfig(stopped=stop), KeyboardInterrupt)
    run(tmp_path / "out")
    assert steps_seen == list(range(STEPS))
    assert tree(tmp_path / "out") == tree(never_stopped)


def test_ctrl_c_while_weights_change_keeps_what_was_before(
    tmp_path: Path, never_stopped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here in the middle of an update: a state that no step has."""
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "out", LineConfig(stopped=4), KeyboardInterrupt)
    monkeypatch.setattr(loop, "KEEP_EVERY_S", math.inf)
    step = torch.optim.AdamW.step

    def halfway(self: torch.optim.AdamW, *others: Any) -> Any:
        step(self, *others)
        raise KeyboardInterrupt

    with monkeypatch.context() as while_weights_change:
        while_weights_change.setattr(torch.optim.AdamW, "step", halfway)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "out")
    run(tmp_path / "out")
    assert tree(tmp_path / "out") == tree(never_stopped)


@pytest.mark.parametrize("epoch", [0, 2])
def test_ctrl_c_while_an_epoch_is_looked_at(
    tmp_path: Path, never_stopped: Path, epoch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then its steps are kept, and looking is done again."""
    monkeypatch.setattr(loop, "KEEP_EVERY_S", math.inf)
    watched = loop._add_watched_values

    def interrupted(lesson: Lesson, step: int, values: Mapping[str, Any]) -> Mapping[str, Any]:
        if step == 4 * epoch + 3:
            raise KeyboardInterrupt
        return watched(lesson, step, values)

    with monkeypatch.context() as while_looking:
        while_looking.setattr(loop, "_add_watched_values", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "out")
    run(tmp_path / "out")
    assert steps_seen == list(range(STEPS))
    assert tree(tmp_path / "out") == tree(never_stopped)


def test_a_gradient_that_is_not_finite_changes_nothing(tmp_path: Path) -> None:
    """The root of 0 is 0, and its slope infinite."""
    lesson = lesson_of(LineConfig())
    weight = torch.nn.Parameter(torch.zeros(1))
    steep = replace(
        lesson,
        optimiser=torch.optim.AdamW([weight]),
        losses=lambda step, batch: Losses(weight.sqrt().sum(), {}),
    )
    with pytest.raises(Diverged, match=r"gradient.*step 0.*row-0-0, row-0-1, row-0-2"):
        train(steep, Course(steps=2, steps_per_epoch=1, seed=1), Underway(place(tmp_path)))
    assert weight.item() == 0


def test_gradients_are_clipped_each_by_its_own_norm(tmp_path: Path) -> None:
    """SGD at rate 1 goes as far as the gradients are long: those of 3 and 0.5 become 1 and 0.5."""
    long, short = (torch.nn.Parameter(torch.zeros(1)) for _ in range(2))
    lesson = replace(
        lesson_of(LineConfig()),
        optimiser=torch.optim.SGD([long, short], lr=1.0),
        losses=lambda step, batch: Losses((3 * long + 0.5 * short).sum(), {}),
        after=lambda step: None,
        learning_rate=Schedule(start=1.0, end=1.0, steps=1),
    )
    train(lesson, Course(steps=1, steps_per_epoch=1, seed=1), Underway(place(tmp_path)))
    assert (long.item(), short.item()) == pytest.approx((-1.0, -0.5), abs=1e-5)


def test_lines_stay_few_and_every_epoch_has_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "MOST_LINES", 3)
    lines = train(lesson_of(LineConfig()), Course(steps=12, steps_per_epoch=5, seed=1), Underway(place(tmp_path)))
    assert [json.loads(line)["step"] for line in lines] == [0, 4, 8, 9, 11]


def test_the_checkpoint_before_is_there_when_the_last_is_damaged(tmp_path: Path, never_stopped: Path) -> None:
    with pytest.raises(Stopped):
        run(tmp_path / "out", LineConfig(stopped=7))
    kept = sorted((tmp_path / "out/underway").iterdir())
    assert [path.name.partition(".")[0] for path in kept] == ["000000006", "000000007"]
    kept[1].write_bytes(kept[1].read_bytes()[:-1])
    steps_seen.clear()
    run(tmp_path / "out")
    assert steps_seen == list(range(6, STEPS))
    assert tree(tmp_path / "out") == tree(never_stopped)
    (told,) = logged(tmp_path / "out", "damaged, not used")
    assert told["file"] == f"underway/{kept[1].name}"


def test_another_configuration_does_not_go_on(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        run(tmp_path / "out", LineConfig(stopped=3))
    before = tree(tmp_path / "out")
    with pytest.raises(StaleArtifact, match=r"rate.*0\.1.*0\.2"):
        run(tmp_path / "out", LineConfig(rate=0.2))
    assert tree(tmp_path / "out") == before


def test_a_loss_that_is_no_number_changes_nothing(tmp_path: Path) -> None:
    with pytest.raises(Diverged, match=r"step 4.*nan.*row-4-0, row-4-1, row-4-2") as raised:
        run(tmp_path / "out", LineConfig(poisoned=4))
    assert raised.value.exit_code == 8
    (last,) = [path for path in (tmp_path / "out/underway").iterdir() if path.name.startswith("000000004")]
    assert all(value.isfinite().all() for value in load(last.read_bytes()).values())


def test_metric_lines_are_losses_and_what_is_watched_and_rates_are_in_the_log(never_stopped: Path) -> None:
    lines = [json.loads(line) for line in open_artifact(str(never_stopped)).file("metrics.jsonl").splitlines()]
    assert [line["step"] for line in lines] == list(range(STEPS))
    assert [line.get("watched") for line in lines] == [
        3 if s == 3 else s if s in (7, 11) else None for s in range(STEPS)
    ]
    for line in lines:
        assert line["loss"] == pytest.approx(line["error"] + 0.01 * line["size"], rel=1e-5)
        assert set(line) - {"watched"} == {"step", "loss", "error", "size"}
    for line in logged(never_stopped, "step"):
        assert line["rows_per_s"] > 0
        assert 0 <= line["waiting"] <= 1


def test_learning_follows_the_schedules(tmp_path: Path) -> None:
    """A step by hand: AdamW's first update is the sign of the gradient times the rate, after decay."""
    lesson = replace(lesson_of(LineConfig()), learning_rate=Schedule(start=0.5, end=0.5, steps=1), clip=0.0)
    model: Any = lesson.modules["model"]
    before = model[1].weight.detach().clone()
    train(lesson, Course(steps=1, steps_per_epoch=1, seed=1), Underway(place(tmp_path), log=lambda event: None))
    moved = model[1].weight.detach() - before * (1 - 0.5 * 0.1)
    assert torch.allclose(moved.abs(), torch.full_like(moved, 0.5), atol=1e-4)


@pytest.mark.parametrize("shape", ["cosine", "linear"])
def test_schedules(shape: Any) -> None:
    schedule = Schedule(start=1.0, end=0.2, steps=110, shape=shape, warmup=10, first=0.1)
    assert schedule.at(0) == pytest.approx(0.1)
    assert schedule.at(9) == pytest.approx(1.0)
    assert schedule.at(10) == pytest.approx(1.0)
    assert schedule.at(60) == pytest.approx(0.6)
    assert schedule.at(110) == schedule.at(500) == pytest.approx(0.2)
    quarter = 0.2 + 0.8 * (1 + math.sqrt(0.5)) / 2 if shape == "cosine" else 0.8
    assert schedule.at(35) == pytest.approx(quarter)
