"""Episodes against the published ones, and what they promise of any dataset."""

import hashlib
import json
from collections import Counter

import pytest
from hypothesis import given, strategies as st

from maskmill.manifests.datasets.fold_lists import read_fold
from maskmill.manifests.errors import ConfigError
from maskmill.stages.students.episodes import evaluation_episode, evaluation_episodes, make_pool, training_episode

# First 16 hex digits of sha256 over [[query, classes, supports], …] as compact JSON, by fold.
DIGESTS = {
    ("pascal", 1): ["e2b769bd8b7ba1c1", "23caafc38fd5b148", "8a852b183c25fd61", "3d6086307d32a5a2"],
    ("pascal", 2): ["19cee6cfb2f8086f", "2800269eed4bb119", "7c6d48604c28d5f4", "7a7b2e1f7d6f866d"],
    ("coco", 1): ["ee07db7340593134"],
    ("coco", 2): ["a59e473f7efd077d"],
}
TESTS = [(name, way, 1, fold) for (name, way), folds in DIGESTS.items() for fold in range(len(folds))]
TESTS += [("pascal", 1, 5, fold) for fold in (0, 1)]


@pytest.mark.parametrize(("name", "way", "shot", "fold"), TESTS)
def test_episodes_are_the_published_ones(reference, name, way, shot, fold):
    listed = read_fold("pascal-5i" if name == "pascal" else "coco-20i", str(reference / "splits" / name), fold, "novel")
    pool = make_pool(listed.lines, listed.classes, "listed" if name == "pascal" else "drawn", way, shot)
    suffix = ".jpg" if name == "coco" else ""
    found = [
        [
            each.query + suffix,
            list(each.classes),
            [[support + suffix for support in of_way] for of_way in each.supports],
            [int(present) for present in each.is_present],
        ]
        for each in evaluation_episodes(pool, way, shot)
    ]
    if shot == 1:
        data = json.dumps([row[:3] for row in found], separators=(",", ":")).encode()
        assert hashlib.sha256(data).hexdigest()[:16] == DIGESTS[name, way][fold]
    golden = reference / f"golden/episodes/{name}_{way}w{shot}s_fold{fold}.json"
    if golden.exists():
        assert found == json.loads(golden.read_text())
    else:
        assert fold > 1  # of the others there are digests alone


def lines_of(sizes, shared=3):
    """Class c has so many pictures; the first few show every class."""
    return [(f"both{n}" if n < shared else f"{label}-{n}", label) for label, size in sizes.items() for n in range(size)]


pools = st.tuples(
    st.dictionaries(st.integers(1, 254), st.integers(4, 9), min_size=1, max_size=6),
    st.sampled_from(["listed", "drawn"]),
)


@given(pools, st.integers(0, 3000), st.integers(1, 6), st.integers(1, 3))
def test_an_episode_keeps_its_promises(pool_of, index, way, shot):
    sizes, queries = pool_of
    way = min(way, len(sizes))
    lines = lines_of(sizes)
    pool = make_pool([*lines, ("other", 255)], sorted(sizes), queries, way, shot)
    for episode in (evaluation_episode(pool, index, way, shot), training_episode(pool, 5, index)):
        assert len(set(episode.classes)) == len(episode.classes) == len(episode.supports)
        for label, supports, is_present in zip(episode.classes, episode.supports, episode.is_present, strict=True):
            assert len(set(supports)) == len(supports)
            assert episode.query not in supports
            assert all((support, label) in lines for support in supports)
            assert is_present == ((episode.query, label) in lines)
    assert evaluation_episode(pool, index, way, shot) == evaluation_episode(pool, index, way, shot)
    assert len(evaluation_episode(pool, index, way, shot).classes) == way
    assert {len(of_way) for of_way in evaluation_episode(pool, index, way, shot).supports} == {shot}


@pytest.mark.parametrize("queries", ["listed", "drawn"])
def test_training_asks_for_the_querys_class_half_of_the_time(queries):
    """10 classes of 5 pictures, none of which shows two: so present is the query's own class."""
    pool = make_pool(lines_of(dict.fromkeys(range(1, 11), 5), shared=0), range(1, 11), queries, 1, 1)
    episodes = [training_episode(pool, 0, place) for place in range(2000)]
    assert abs(sum(each.is_present[0] for each in episodes) - 1000) < 4 * (2000 / 4) ** 0.5
    asked = Counter(each.classes[0] for each in episodes)
    assert set(asked) == set(range(1, 11))
    assert max(asked.values()) < 2 * min(asked.values())
    assert len({each.supports for each in episodes}) == 50


def test_listed_queries_come_once_an_epoch_in_an_order_of_its_own():
    lines = lines_of({1: 5, 2: 7})
    pool = make_pool(lines, [1, 2], "listed", 1, 1)
    assert pool.episodes_per_epoch == 12
    epochs = [[training_episode(pool, 3, 12 * epoch + at).query for at in range(12)] for epoch in range(3)]
    assert all(Counter(epoch) == Counter(image for image, _ in lines) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_drawn_queries_have_an_epoch_of_every_picture():
    assert make_pool(lines_of({1: 5, 2: 7}), [1, 2], "drawn", 1, 1).episodes_per_epoch == 9


def test_seeds_and_places_give_other_episodes():
    pool = make_pool(lines_of(dict.fromkeys(range(1, 9), 9)), range(1, 9), "drawn", 1, 1)
    runs = [
        [training_episode(pool, seed, start + place) for place in range(20)] for seed, start in ((0, 0), (1, 0), (0, 1))
    ]
    assert runs[0] != runs[1]
    assert runs[0][1:] == runs[2][:-1]


@pytest.mark.parametrize(
    ("sizes", "way", "shot", "message"),
    [
        ({1: 9, 2: 9}, 3, 1, "3.*1.*2 classes"),
        ({1: 9, 2: 9}, 0, 1, "0 way.*1 shot"),
        ({1: 9, 2: 9}, 1, 0, "1 way.*0 shot"),
        ({1: 9, 2: 1}, 1, 1, "class 2.*1.*2"),
        ({1: 5, 2: 9}, 2, 5, "class 1.*5.*6"),
    ],
)
def test_what_no_episode_can_be_made_of_is_refused(sizes, way, shot, message):
    with pytest.raises(ConfigError, match=message):
        make_pool(lines_of(sizes), sorted(sizes), "listed", way, shot)


def test_one_class_is_always_asked_for():
    pool = make_pool(lines_of({7: 4}), [7], "listed", 1, 1)
    assert all(evaluation_episode(pool, index, 1, 1).classes == (7,) for index in range(20))
    assert all(training_episode(pool, 0, index).is_present == (True,) for index in range(20))
