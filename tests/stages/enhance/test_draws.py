"""Which pictures are learned from: so many of each class, whatever else there is, and parted without overlap."""

from collections.abc import Mapping

from hypothesis import given, strategies as st

from maskmill.stages.enhance.draws import cross_fit_folds
from maskmill.stages.learning.draws import draw_per_class, order_by_hash

IDS = st.text("abcdefgh/0123456789", min_size=1, max_size=6)
SHOWN = st.dictionaries(IDS, st.lists(st.integers(1, 4), min_size=1, max_size=3, unique=True), min_size=1, max_size=40)


def of_class(shown: Mapping[str, list[int]], index: int) -> list[str]:
    return [identifier for identifier in shown if index in shown[identifier]]


@given(SHOWN, st.integers(1, 5), st.integers(0, 3))
def test_of_each_class_the_first_in_order(shown: dict[str, list[int]], number: int, seed: int) -> None:
    found = draw_per_class(shown, lambda count: number, seed)
    assert found == order_by_hash(found, seed)
    wanted = {each for index in range(1, 5) for each in order_by_hash(of_class(shown, index), seed)[:number]}
    assert set(found) == wanted
    for index in range(1, 5):
        assert len(set(found) & set(of_class(shown, index))) >= min(number, len(of_class(shown, index)))


@given(SHOWN, IDS, st.integers(1, 4), st.integers(0, 3))
def test_an_added_picture_takes_the_place_of_one_a_class_at_most(
    shown: dict[str, list[int]], new: str, number: int, seed: int
) -> None:
    before = set(draw_per_class({**shown, new: []}, lambda count: number, seed))
    after = set(draw_per_class({**shown, new: [1]}, lambda count: number, seed))
    gone, come = before - after - {new}, after - before - {new}
    assert not come - set(shown)
    assert len(gone) <= (len(shown.get(new, [])) or 1)
    assert all(1 in shown[each] or new in shown for each in gone)


def test_the_seed_decides() -> None:
    shown = {f"p{number}": [1] for number in range(50)}
    assert len({tuple(draw_per_class(shown, lambda count: 3, seed)) for seed in range(20)}) > 15


@given(st.lists(IDS, min_size=1, max_size=40, unique=True), st.integers(0, 6))
def test_no_network_sees_what_it_is_held_out_for(ids: list[str], networks: int) -> None:
    if networks > len(ids) or networks == 0:
        networks = 1
    found = cross_fit_folds(ids, networks)
    assert len(found) == networks
    for part in found:
        three = [*part.fitting, *part.stopping, *part.held_out]
        assert sorted(three) == sorted(ids), "each picture once, and the budget is all of them"
        assert part.fitting
        assert bool(part.stopping) == (len(part.fitting) + len(part.stopping) > 1)
        assert len(part.stopping) <= max(1, len(ids) // 4)
    if networks == 1:
        assert not found[0].held_out
    else:
        assert sorted(each for part in found for each in part.held_out) == sorted(ids)
