"""What a fingerprint covers: every setting, every row in order, and nothing that changes no byte."""

from dataclasses import dataclass, fields, replace
from itertools import permutations
from typing import Any, ClassVar

import pytest
from hypothesis import given, strategies as st

from maskmill.manifests.artifact.config import config_from, config_json, option
from maskmill.manifests.artifact.fingerprint import differences, fingerprint, ids_digest, unit_fingerprint
from maskmill.manifests.errors import CorruptArtifact


@dataclass(frozen=True, slots=True, kw_only=True)
class Square:
    layout: ClassVar[str] = "square"
    side: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Circle:
    layout: ClassVar[str] = "circle"
    radius: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    number: int = 1
    share: float = 0.5
    name: str | None = None
    sizes: tuple[int, ...] = (1, 2)
    shape: Square | Circle = Square()
    later: str = option("", is_new=True)
    threads: int = option(1, changes_bytes=False)


OTHER: dict[str, Any] = {
    "number": 2,
    "share": 0.25,
    "name": "",
    "sizes": (2, 1),
    "shape": Circle(),
    "later": "keys",
}


def test_every_setting_that_changes_bytes_changes_the_fingerprint() -> None:
    assert {field.name for field in fields(Config)} - set(OTHER) == {"threads"}
    prints = [fingerprint(config_json(replace(Config(), **{name: value}))) for name, value in OTHER.items()]
    assert len({fingerprint(config_json(Config())), *prints}) == len(OTHER) + 1
    assert config_json(replace(Config(), threads=8)) == config_json(Config())


def test_an_option_that_was_added_later_leaves_the_names_of_older_artifacts() -> None:
    assert "later" not in config_json(Config())
    assert config_json(replace(Config(), later="keys"))["later"] == "keys"


configs = st.builds(
    Config,
    number=st.integers(-1000, 1000),
    share=st.floats(allow_nan=False, allow_infinity=False),
    name=st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    sizes=st.lists(st.integers(0, 9), max_size=3).map(tuple),
    shape=st.builds(Square, side=st.integers(0, 9)) | st.builds(Circle, radius=st.floats(0, 9)),
)


@given(configs)
def test_a_config_comes_back_from_its_json(config: Config) -> None:
    assert config_from(Config, config_json(config)) == config


def test_a_setting_from_a_newer_version_is_refused() -> None:
    with pytest.raises(CorruptArtifact, match="colour"):
        config_from(Config, {**config_json(Config()), "colour": "red"})


@given(configs, configs)
def test_differences_are_named_exactly_where_values_differ(old: Config, new: Config) -> None:
    before, after = config_json(old), config_json(new)
    named = {path.partition(".")[0] for path, _, _ in differences(before, after)}
    assert named == {name for name in before if before[name] != after[name]}


def test_a_difference_has_its_path_and_both_values() -> None:
    old, new = {"a": {"b": 1, "c": [1]}, "d": 0}, {"a": {"b": 2, "c": [1]}, "d": 0, "e": None}
    assert list(differences(old, new)) == [("a.b", 1, 2)]
    assert list(differences({"a": 1}, {"a": 1.0})) == [("a", 1, 1.0)]


def test_a_unit_covers_its_rows_in_order() -> None:
    rows = [["a", "ok", "1"], ["b", "ok", "2"], ["c", "failed", ""]]
    prints = {unit_fingerprint({"": "f"}, order) for order in permutations(rows)}
    prints |= {unit_fingerprint({"": "f"}, rows[:2]), unit_fingerprint({"": "g"}, rows), unit_fingerprint({}, [])}
    prints |= {unit_fingerprint({"": "f"}, [[*row[:2], "9"], *rows[1:]]) for row in rows[:1]}
    assert len(prints) == 6 + 4


def test_ids_do_not_run_into_each_other() -> None:
    lists = [["ab", "c"], ["a", "bc"], ["abc"], ["c", "ab"], []]
    assert len({ids_digest(ids) for ids in lists}) == len(lists)
