"""Thresholds by class: every form that a shell, a recipe and Python give means the same, and mistakes are named."""

from typing import Any

import numpy as np
import pytest

from maskmill.manifests.artifact.config import build_config, config_from, config_json, options_of, read_table
from maskmill.manifests.classes import ClassTable
from maskmill.manifests.errors import ConfigError
from maskmill.stages.maps.class_thresholds import name_classes, parse_thresholds
from maskmill.stages.maps.cut_scores import CutScores
from maskmill.stages.refine.config import RefineConfig

TABLE = ClassTable().with_classes([("c", "cat"), ("d", "dog"), ("3", "a=b"), ("x", "twin"), ("y", "twin")])


def from_recipe(value: Any) -> RefineConfig:
    values, mistakes = read_table({"threshold": value}, options_of(RefineConfig))
    assert not mistakes, mistakes
    return build_config(RefineConfig, values)


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (0.5, 0.5),
        (1, 1.0),
        ("0.5", 0.5),
        (("0.5",), 0.5),
        ("cat=0.3", ("cat=0.3",)),
        (["dog=.4", "cat=0.30", 0.5], ("0.5", "cat=0.3", "dog=0.4")),
        ({"dog": 0.4, "cat": 0.3}, ("cat=0.3", "dog=0.4")),
        ({"a=b": 1}, ("a=b=1.0",)),
    ],
    ids=["number", "whole", "text", "one text", "class", "list", "table", "name with ="],
)
def test_every_form_is_stored_as_one(value: Any, stored: Any) -> None:
    config = from_recipe(value)
    assert config.threshold == RefineConfig(threshold=value).threshold == stored
    assert config_json(config)["threshold"] == (list(stored) if isinstance(stored, tuple) else stored)
    assert config_from(RefineConfig, config_json(config)) == config


def test_a_shell_that_gives_none_and_a_plain_score_leave_what_older_artifacts_store() -> None:
    assert config_json(RefineConfig(threshold=()))["threshold"] is None is config_json(RefineConfig())["threshold"]
    assert config_json(RefineConfig(threshold=("0.4",)))["threshold"] == 0.4


@pytest.mark.parametrize(
    "value", ["high", "cat=high", "cat=1.5", "cat=-1", "=0.5", "nan", "cat=nan", "", ("cat=0.1", "cat=0.2"), (0.1, 0.2)]
)
def test_what_is_not_a_threshold_is_refused(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"^--threshold is "):
        parse_thresholds(value)


def test_classes_are_named_by_name_or_index() -> None:
    assert name_classes(("0.5", "2=0.4", "cat=0.3"), TABLE) == ("0.5", "cat=0.3", "dog=0.4")
    assert name_classes(("4=0.1", "a=b=0.2"), TABLE) == ("4=0.1", "a=b=0.2")
    assert (name_classes(0.5, TABLE), name_classes(None, TABLE)) == (0.5, None)
    for threshold, named in {
        "cta=0.3": "cta.*did you mean cat",
        "6=0.3": "6, which is not a class",
        "0=0.3": "0, which is not a class",
        "twin=0.3": "twin.*4, 5",
    }.items():
        with pytest.raises(ConfigError, match=named):
            name_classes((threshold,), TABLE)
    with pytest.raises(ConfigError, match="twice for cat"):
        name_classes(("1=0.2", "cat=0.3"), TABLE)


def test_a_map_is_cut_at_the_score_of_its_class_else_of_all_else_its_own() -> None:
    rows = [{"class": index, "threshold": 0.125} for index in (1, 2, None)]
    for thresholds, expected in {
        None: [0.125, 0.125, 0.125],
        0.5: [0.5, 0.5, 0.5],
        ("cat=0.3",): [float(np.float32(0.3)), 0.125, 0.125],
        ("0.5", "cat=0.3"): [float(np.float32(0.3)), 0.5, 0.5],
    }.items():
        assert CutScores.of(thresholds, TABLE).of_rows(rows).tolist() == expected
