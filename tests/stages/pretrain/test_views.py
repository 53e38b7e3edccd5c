"""Views against cropping and resizing each picture alone, by torch and by Pillow."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from maskmill.manifests.errors import ConfigError
from maskmill.stages.pretrain.draws import draws_at
from maskmill.stages.pretrain.views import (
    FIRST_GLOBAL,
    LOCAL,
    SECOND_GLOBAL,
    Strengths,
    draw_boxes,
    draw_view,
    draw_views,
)

CPU = torch.device("cpu")
PLAIN = Strengths(  # the whole picture, resized
    size_px=24, scale=(1.0, 1.0), ratio=(1.0, 1.0), flipped=0.0, jittered=0.0, grey=0.0, blurred=0.0, solarised=0.0
)


def pictures(batch: int = 4, side: int = 40) -> Tensor:
    return torch.randint(0, 256, (batch, 3, side, side), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def resized(picture: Tensor, size: int) -> Tensor:
    """[3, rows, columns] of bytes, by torch."""
    shares = picture[None].double() / 255
    return interpolate(shares, (size, size), mode="bicubic", antialias=True)[0].clamp(0, 1).float()


@pytest.mark.parametrize("side", [24, 17, 40, 100])
def test_without_distortions_a_view_is_the_picture_resized(side):
    given_pictures = pictures(side=side)
    found = draw_view(given_pictures, PLAIN, draws_at(0))
    for b in range(4):
        assert (found[b] - resized(given_pictures[b], 24)).abs().max() < 1e-5
    if side == 24:
        assert torch.equal(found, given_pictures / 255)


@pytest.mark.parametrize("side", [17, 40, 100])
def test_resizing_is_pillows(side):
    """Of pictures without contrasts so strong that Pillow cuts them off between the axes."""
    soft = pictures(side=side) // 3 + 85
    found = 255 * draw_view(soft, PLAIN, draws_at(0)).permute(0, 2, 3, 1).double().numpy()
    for b in range(4):
        pillow = Image.fromarray(soft[b].permute(1, 2, 0).numpy()).resize((24, 24), Image.Resampling.BICUBIC)
        assert np.abs(found[b] - np.asarray(pillow, np.float64)).max() < 1.5  # it rounds after each axis


@given(st.integers(0, 10_000), st.sampled_from([7, 24, 64]))
def test_each_picture_has_its_own_crop_exact_to_the_pixel(seed, size):
    kind = replace(PLAIN, size_px=size, scale=(0.05, 1.0), ratio=(0.5, 2.0))
    given_pictures = pictures()
    found = draw_view(given_pictures, kind, draws_at(seed))
    boxes = draw_boxes(4, 40, kind, draws_at(seed), CPU)
    for b, (top, left, rows, columns) in enumerate(boxes.tolist()):
        crop = given_pictures[b, :, top : top + rows, left : left + columns]
        assert (found[b] - resized(crop, size)).abs().max() < 2e-5


@given(
    st.floats(0.05, 1), st.floats(0, 0.9), st.floats(0.5, 2), st.floats(1, 2), st.integers(4, 300), st.integers(0, 99)
)
def test_boxes_keep_scale_and_ratio_and_lie_within(high, less, narrow, wider, side, seed):
    kind = replace(PLAIN, scale=(high * (1 - less), high), ratio=(narrow, narrow * wider))
    boxes = draw_boxes(8, side, kind, draws_at(seed), CPU).double()
    top, left, rows, columns = boxes.unbind(dim=1)
    assert (rows >= 1).all()
    assert (columns >= 1).all()
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + rows <= side).all()
    assert (left + columns <= side).all()
    # Half a pixel either way is rounding.
    assert ((columns + 0.5) / (rows - 0.5) >= kind.ratio[0] - 1e-4).all()
    assert ((columns - 0.5) / (rows + 0.5) <= kind.ratio[1] + 1e-4).all()
    is_whole = (rows == side) | (columns == side)  # where ten tries did not fit
    assert (is_whole | ((rows - 0.5) * (columns - 0.5) <= kind.scale[1] * side**2 + 1e-3)).all()


@pytest.mark.parametrize(
    ("ratio", "expected"), [((3.0, 4.0), [13, 0, 13, 40]), ((0.25, 0.5), [0, 10, 40, 20]), ((0.5, 2.0), [0, 0, 40, 40])]
)
def test_where_no_try_fits_it_is_the_largest_in_the_middle(ratio, expected):
    kind = replace(PLAIN, scale=(0.999, 1.0), ratio=ratio)
    boxes = draw_boxes(200, 40, kind, draws_at(0), CPU).tolist()
    assert expected in boxes
    if not ratio[0] <= 1 <= ratio[1]:
        assert boxes == [expected] * 200


def test_boxes_are_spread_over_scales_and_places():
    kind = replace(PLAIN, scale=(0.25, 1.0), ratio=(3 / 4, 4 / 3))
    top, left, rows, columns = draw_boxes(4000, 100, kind, draws_at(0), CPU).double().unbind(dim=1)
    share = rows * columns / 100**2
    assert 0.24 < float(share.min()) < 0.27
    assert 0.55 < float(share.mean()) < 0.62  # a little under the middle: of the large ones fewer fit
    assert abs(float((columns / rows).log().mean())) < 0.02
    for start, length in ((top, rows), (left, columns)):
        free = length < 95
        place = start[free] / (100 - length[free])
        assert float(place.min()) == 0
        assert float(place.max()) == 1
        assert abs(float(place.mean()) - 0.5) < 0.02


def test_a_flip_mirrors():
    straight = draw_view(pictures(), replace(PLAIN, scale=(0.3, 0.9)), draws_at(5))
    mirrored = draw_view(pictures(), replace(PLAIN, scale=(0.3, 0.9), flipped=1.0), draws_at(5))
    assert (mirrored - straight.flip(3)).abs().max() < 1e-6
    half = draw_view(pictures(200, side=24), replace(PLAIN, flipped=0.5), draws_at(5))
    is_flipped = (half != pictures(200, side=24) / 255).flatten(1).any(dim=1)
    assert 70 < int(is_flipped.sum()) < 130
    assert torch.equal(half[is_flipped], (pictures(200, side=24) / 255).flip(3)[is_flipped])


@pytest.mark.parametrize("step", ["jittered", "grey", "blurred", "solarised"])
def test_each_step_is_done_to_as_many_pictures_as_asked(step):
    given_pictures = pictures(200, side=24)
    changes: dict[str, Any] = {"sigma_px": (0.5, 2.0), step: 0.3}
    kind = replace(PLAIN, **changes)
    found = draw_view(given_pictures, kind, draws_at(1))
    is_changed = (found != given_pictures / 255).flatten(1).any(dim=1)
    assert 35 < int(is_changed.sum()) < 85
    if step == "grey":
        assert (found[is_changed].amax(dim=1) == found[is_changed].amin(dim=1)).all()


@pytest.mark.parametrize("field", ["brightness", "contrast", "saturation", "hue"])
def test_each_jitter_has_its_own_strength(field):
    none = replace(PLAIN, jittered=1.0, brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0)
    given_pictures = pictures(side=24)
    assert torch.equal(draw_view(given_pictures, none, draws_at(0)), given_pictures / 255)
    changes: dict[str, Any] = {field: 0.3}
    found = draw_view(given_pictures, replace(none, **changes), draws_at(0))
    assert (found != given_pictures / 255).flatten(1).any(dim=1).all()


@given(st.integers(0, 10_000))
def test_values_stay_in_range(seed):
    kind = Strengths(
        size_px=16,
        scale=(0.05, 1.0),
        jittered=1.0,
        brightness=1.0,
        contrast=1.0,
        saturation=1.0,
        hue=0.5,
        blurred=1.0,
        solarised=0.5,
    )
    stark = pictures() // 128 * 255
    found = draw_view(stark, kind, draws_at(seed))
    assert found.isfinite().all()
    assert float(found.min()) >= 0
    assert float(found.max()) <= 1


def test_views_are_those_of_the_same_generator_normalised():
    kinds = [replace(kind, size_px=kind.size_px // 8) for kind in (FIRST_GLOBAL, SECOND_GLOBAL, LOCAL, LOCAL)]
    given_pictures = pictures()
    before = given_pictures.clone()
    untouched = torch.get_rng_state()
    drawn = [draw_views(given_pictures, kinds, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), draws_at(7, s)) for s in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), untouched)
    assert torch.equal(given_pictures, before)
    assert [view.shape[-1] for view in drawn[0]] == [28, 28, 12, 12]
    for first, again, other in zip(*drawn, strict=True):
        assert torch.equal(first, again)
        assert not torch.equal(first, other)
    assert not torch.equal(drawn[0][2], drawn[0][3])
    plain = draw_view(given_pictures, kinds[0], draws_at(7, 0))
    for channel, (mean, std) in enumerate(((0.5, 0.2), (0.4, 0.3), (0.3, 0.4))):
        assert (drawn[0][0][:, channel] - (plain[:, channel] - mean) / std).abs().max() < 1e-6


def test_autocast_does_not_coarsen_a_view():
    plain = draw_view(pictures(), PLAIN, draws_at(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(draw_view(pictures(), PLAIN, draws_at(0)), plain)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"flipped": 1.1}, "flipped.*1.1.*0.*1"),
        ({"brightness": -0.1}, "brightness.*-0.1.*0.*1"),
        ({"scale": (0.5, 0.2)}, "scale.*0.5.*0.2"),
        ({"scale": (0.5, 1.2)}, "scale.*1"),
        ({"ratio": (0.0, 1.0)}, "ratio.*0.0"),
        ({"size_px": 0}, "size_px.*0"),
        ({"hue": 0.6}, "hue.*0.6"),
        ({"sigma_px": (2.0, 1.0)}, "sigma_px"),
    ],
)
def test_what_cannot_be_is_refused(wrong, message):
    with pytest.raises(ConfigError, match=message):
        replace(PLAIN, **wrong)
