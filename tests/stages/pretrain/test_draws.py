"""Draws are the same at the same place, and in the range that was asked for."""

import pytest
import torch
from hypothesis import given, strategies as st

from maskmill.stages.learning.processes import WHOLE, BatchSlice
from maskmill.stages.pretrain.draws import draw_bernoulli, draw_noise, draw_order, draw_shares, draws_at, whole_below

CPU = torch.device("cpu")


def drawn(seed: int, *place: int) -> torch.Tensor:
    return draw_shares(draws_at(seed, *place), (8,), CPU)


def test_a_place_has_its_own_numbers_again_and_again():
    places = [(0,), (1,), (0, 0), (0, 1), (1, 0), (2**32,), (2**32, 0), (2**63, 7)]
    found = [drawn(*place) for place in places]
    for number, place in enumerate(places):
        same = [torch.equal(drawn(*place), other) for other in found]
        assert same == [other == number for other in range(len(places))]


@given(st.integers(1, 5000), st.integers(0, 100))
def test_whole_numbers_stay_below_their_limit(limit, seed):
    share = drawn(seed)
    share[0], share[1] = 0, 1 - 2**-24  # the least and the greatest that torch draws
    found = whole_below(share, limit)
    assert int(found[0]) == 0
    assert int(found[1]) == limit - 1
    assert int(found.max()) < limit


@pytest.mark.parametrize(("probability", "share"), [(0.0, 0.0), (1.0, 1.0), (0.3, 0.3)])
def test_chosen_as_often_as_asked(probability, share):
    found = draw_bernoulli(draws_at(0), (20_000,), probability, CPU).float().mean()
    assert abs(float(found) - share) < (0.02 if 0 < share < 1 else 1e-9)


def test_nothing_is_taken_from_the_generator_of_others():
    before = torch.get_rng_state()
    drawn(3)
    assert torch.equal(torch.get_rng_state(), before)


@given(st.integers(0, 100), st.sampled_from([1, 2, 3, 6]))
def test_what_a_row_gets_does_not_depend_on_who_has_it(seed, count):
    def all_draws(part: BatchSlice, rows: int) -> list[torch.Tensor]:
        draws = draws_at(seed, part=part)
        sides = draw_shares(draws, (2, rows, 3), CPU, rows=1)
        return [*sides, draw_noise(draws, torch.empty(rows, 4)), draw_bernoulli(draws, (rows,), 0.5, CPU)]

    orders = {tuple(draw_order(draws_at(seed, part=BatchSlice(index, count)), 5)) for index in range(count)}
    assert len(orders) == 1
    whole = all_draws(WHOLE, 6)
    of_parts = [all_draws(BatchSlice(index, count), 6 // count) for index in range(count)]
    for number, wanted in enumerate(whole):
        assert torch.equal(torch.cat([drawn[number] for drawn in of_parts]), wanted)
