"""When a score is said to be no better than a guess."""

from maskmill.stages.scores.verdict import floor_warnings

FLOORS: dict[str, dict[str, float | None]] = {
    "all foreground": {"estimate": 0.2},
    "best fixed ellipse": {"estimate": 0.4},
    "undefined": {"estimate": None},
}


def verdict(low: float | None, pictures: int = 10) -> list[str]:
    high = None if low is None else low + 0.2
    return floor_warnings({"estimate": 0.5, "low": low, "high": high}, FLOORS, pictures, "learn from true masks")


def test_an_interval_that_reaches_the_best_floor_is_a_warning_with_a_cure() -> None:
    (sentence,) = verdict(0.4)
    assert "best fixed ellipse" in sentence
    assert sentence.endswith("learn from true masks")
    assert verdict(0.401) == []


def test_too_few_pictures_and_undefined_scores_say_nothing() -> None:
    assert verdict(0.1, pictures=9) == []
    assert verdict(None) == []
    assert floor_warnings({"estimate": 0.5, "low": 0.4, "high": 0.6}, {}, 50, "") == []
