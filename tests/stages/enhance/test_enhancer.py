"""The enhancer's network: what was published of it, and what is promised of what lies outside of the picture."""

import pytest
import torch
from hypothesis import given, strategies as st

from maskmill.stages.enhance.enhancer import Enhancer


def network_of(heads: int, seed: int = 0) -> Enhancer:
    torch.manual_seed(seed)
    return Enhancer(heads)


def test_the_parameters_are_those_that_were_published() -> None:
    """CST's snippet: 6 → 128 → 128 → 1, with biases."""
    network = network_of(6)
    assert sum(each.numel() for each in network.parameters()) == 155_777
    shapes = [tuple(each.shape) for each in network.parameters()]
    assert shapes == [(128, 6, 3, 3), (128,), (128, 128, 3, 3), (128,), (1, 128, 3, 3), (1,)]


@given(st.integers(1, 5), st.tuples(st.integers(1, 7), st.integers(1, 7)), st.integers(0, 99))
def test_what_lies_outside_of_the_box_has_no_share(heads: int, inside: tuple[int, int], seed: int) -> None:
    """The map is the same whatever stands there, and as if the view ended with the picture."""
    network, generator = network_of(heads, seed), torch.Generator().manual_seed(seed)
    maps = torch.rand(1, heads, 7, 7, generator=generator)
    valid = torch.zeros(1, 7, 7, dtype=torch.bool)
    valid[:, : inside[0], : inside[1]] = True
    network.fit_normalisation(maps, valid)
    other = torch.where(valid[:, None], maps, torch.rand(1, heads, 7, 7, generator=generator))
    with torch.no_grad():
        found = network(maps, valid)
        torch.testing.assert_close(network(other, valid), found, rtol=0, atol=0)
        alone = network(maps[..., : inside[0], : inside[1]], valid[:, : inside[0], : inside[1]])
    assert not found[~valid].any()
    torch.testing.assert_close(found[:, : inside[0], : inside[1]], alone, rtol=0, atol=1e-6)
    assert found.min() >= 0
    assert found.max() <= 1


def test_each_head_is_looked_at_in_its_own_scale() -> None:
    """Maps of little contrast, as of random weights, are learned from as well as others."""
    network, maps = network_of(3), torch.rand(4, 3, 5, 6)
    valid = torch.rand(4, 5, 6) < 0.8
    scale, shift = torch.tensor([1.0, 1e-3, 7.0]).view(3, 1, 1), torch.tensor([0.0, 0.5, -2.0]).view(3, 1, 1)
    network.fit_normalisation(maps, valid)
    found = network(maps, valid)
    network.fit_normalisation(maps * scale + shift, valid)
    torch.testing.assert_close(network(maps * scale + shift, valid), found, rtol=0, atol=1e-4)
    assert float(network.mean_H[0]) == pytest.approx(float(maps[:, 0][valid].mean()))


def test_a_head_of_one_value_is_no_division_by_zero() -> None:
    network, maps, valid = network_of(2), torch.rand(2, 2, 4, 4), torch.ones(2, 4, 4, dtype=torch.bool)
    maps[:, 1] = 0.25
    network.fit_normalisation(maps, valid)
    assert network.width_H[1] == 1
    assert network(maps, valid).isfinite().all()
