"""A message names an option in the words of whoever reads it."""

import pytest

from maskmill.pipeline.recipes.spelling import Spelling, spell
from maskmill.stages.registry import find_command

SENTENCES = [
    ("extract", "pass their path as --weights", "set", "pass their path as --set extract.weights="),
    ("extract", "pass their path as --weights", "python", "pass their path as weights="),
    ("extract", "pass their path as --weights", "key", "pass their path as weights"),
    ("mask", "choose --threshold otsu, or another", "set", "choose --set mask.threshold=otsu, or another"),
    ("mask", "leave --per-head out", "set", "leave --set mask.per_head out"),
    ("mask", "run `maskmill mask --per-head` first", "set", "run `maskmill mask --per-head` first"),
    ("manifest", "--compare-with is for labels", "set", "--set manifest.compare_with is for labels"),
    ("enhancer", "--cross-fit is 1; leave it out", "python", "cross_fit is 1; leave it out"),
    ("refine", "choose another --out", "set", "choose another --work"),
    ("refine", "choose another --out", "python", "choose another --out"),
    ("train", "a student needs --tokens DIR or", "python", "a student needs tokens=DIR or"),
    ("refine", "--no-such-thing stays, and a--threshold", "set", "--no-such-thing stays, and a--threshold"),
]


@pytest.mark.parametrize(("command", "sentence", "spelling", "expected"), SENTENCES)
def test_options_are_spelled(command: str, sentence: str, spelling: Spelling, expected: str) -> None:
    assert spell(sentence, find_command(command), spelling) == expected
