"""Curves as TensorBoard reads them back."""

from pathlib import Path

import pytest

from maskmill.stages.learning.curves import open_curves

pytest.importorskip("tensorboard", reason="the extra `tensorboard` is not installed")


def drawn(directory: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(directory))
    found.Reload()
    return {tag: [(each.step, each.value) for each in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def test_numbers_are_drawn_and_sentences_are_not(tmp_path: Path) -> None:
    with open_curves(str(tmp_path / "curves")) as show:
        show(0, {"loss": 2.0})
        show(3, {"loss": 1.5, "cls active": 7, "warning": "clusters tell pictures hardly apart"})
    assert drawn(tmp_path / "curves") == {"loss": [(0, 2.0), (3, 1.5)], "cls/active": [(3, 7.0)]}


def test_what_is_done_again_is_drawn_once(tmp_path: Path) -> None:
    """A run that was killed at step 5 goes on from its checkpoint of step 3."""
    for begun, stopped, value in ((0, 6, 1.0), (3, 8, 2.0)):
        with open_curves(str(tmp_path)) as show:
            for step in range(begun, stopped):
                show(step, {"loss": value})
    assert drawn(tmp_path) == {"loss": [(step, 1.0 if step < 3 else 2.0) for step in range(8)]}


def test_nothing_shown_is_nothing_written(tmp_path: Path) -> None:
    with open_curves("") as show:
        show(0, {"loss": 1.0})
    with open_curves(str(tmp_path / "none")):
        pass
    assert not list(tmp_path.iterdir())
