"""Joint bilateral upsampling against its formula in float64, pixel by pixel, and what it promises."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from maskmill.manifests.errors import ConfigError
from maskmill.stages.refine.joint_bilateral import joint_bilateral_maps
from maskmill.stages.refine.presets import MEASURED_JBU, JointBilateralPreset, parse_jbu
from maskmill.stages.vision.fitting import Box, valid_patches

PATCH = (4, 5)


def picture_of(size: tuple[int, int], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3)).astype(np.uint8)


def maps_of(grid: tuple[int, int], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random((2, *grid), np.float32)


def overlap(pixel: int, num_pixels: int, inside: tuple[int, int], patch: int, patch_px: int) -> float:
    width = (inside[1] - inside[0]) / num_pixels
    start = inside[0] + pixel * width
    return max(0.0, min(start + width, (patch + 1) * patch_px) - max(start, patch * patch_px))


def patch_colour(picture: np.ndarray, patch: tuple[int, int], box: Box) -> np.ndarray:
    height, width = picture.shape[:2]
    rows = [overlap(i, height, (box[0], box[2]), patch[0], PATCH[0]) for i in range(height)]
    columns = [overlap(j, width, (box[1], box[3]), patch[1], PATCH[1]) for j in range(width)]
    shares = np.outer(rows, columns)
    return (shares[..., None] * picture.astype(np.float64) / 255).sum(axis=(0, 1)) / shares.sum()


def by_hand(maps: np.ndarray, picture: np.ndarray, box: Box, preset: JointBilateralPreset) -> np.ndarray:
    """Σ w S / Σ w with w = exp(−d² / 2 spatial²) · exp(−c² / 2 range²) over the valid patches of the window."""
    (height, width), valid_RC = picture.shape[:2], valid_patches(box, PATCH, maps.shape[1:])
    patches = [(int(r), int(c)) for r, c in np.argwhere(valid_RC)]
    last_row, last_column = patches[-1]
    colours = {patch: patch_colour(picture, patch, box) for patch in patches}
    upsampled = np.zeros((len(maps), height, width))
    for i, j in np.ndindex(height, width):
        y = (box[0] + (i + 0.5) * (box[2] - box[0]) / height) / PATCH[0] - 0.5
        x = (box[1] + (j + 0.5) * (box[3] - box[1]) / width) / PATCH[1] - 0.5
        row = min(max(int(np.floor(y + 0.5)), patches[0][0]), last_row)
        column = min(max(int(np.floor(x + 0.5)), patches[0][1]), last_column)
        near = [p for p in patches if max(abs(p[0] - row), abs(p[1] - column)) <= preset.radius]
        weights = [
            np.exp(-((y - r) ** 2 + (x - c) ** 2) / (2 * preset.spatial**2))
            * np.exp(-((picture[i, j] / 255 - colours[r, c]) ** 2).sum() / (2 * preset.range**2))
            for r, c in near
        ]
        upsampled[:, i, j] = sum(w * maps[:, r, c] for w, (r, c) in zip(weights, near, strict=True)) / sum(weights)
    return upsampled


BOXES: list[tuple[tuple[int, int], Box]] = [
    ((13, 17), (0, 0, 12, 20)),  # fills the view
    ((9, 21), (0, 0, 7, 20)),  # padded below: the second row of patches is mostly picture, the third not at all
    ((20, 6), (0, 0, 12, 8)),  # padded on the right
    ((2, 3), (0, 0, 12, 20)),  # fewer pixels than patches
    ((5, 5), (0, 0, 1, 1)),  # no patch is mostly picture
    ((8, 8), (4, 5, 12, 20)),  # not in the corner
]


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(BOXES),
    st.integers(0, 9),
    st.sampled_from([0.4, 1.0, 3.0]),
    st.sampled_from([0.15, 0.3, 2.0]),
    st.integers(0, 3),
)
def test_it_is_the_formula(
    view: tuple[tuple[int, int], Box], seed: int, spatial: float, sigma_range: float, radius: int
) -> None:
    (size, box), preset = view, JointBilateralPreset(spatial, sigma_range, radius)
    picture, maps = picture_of(size, seed), maps_of((3, 4), seed)
    upsampled = joint_bilateral_maps(maps, picture, box, PATCH, preset)
    assert upsampled.dtype == np.float32
    np.testing.assert_allclose(upsampled, by_hand(maps, picture, box, preset), atol=2e-5)


@pytest.mark.parametrize(("size", "box"), BOXES)
@pytest.mark.parametrize("sigma_range", [1e-3, 0.1])
def test_a_constant_map_stays_constant_and_no_pixel_leaves_the_range(
    size: tuple[int, int], box: Box, sigma_range: float
) -> None:
    """The weights of a pixel sum to 1, even if no patch has a colour near the pixel's."""
    preset = JointBilateralPreset(0.5, sigma_range)
    for value in (0.1, -3.7):
        constant = np.full((1, 3, 4), value, np.float32)
        assert (joint_bilateral_maps(constant, picture_of(size, 1), box, PATCH, preset) == np.float32(value)).all()
    maps = maps_of((3, 4), 2)
    upsampled = joint_bilateral_maps(maps, picture_of(size, 2), box, PATCH, preset)
    assert (upsampled >= maps.min(axis=(1, 2), keepdims=True)).all()
    assert (upsampled <= maps.max(axis=(1, 2), keepdims=True)).all()


def test_patches_beside_the_picture_count_for_nothing() -> None:
    picture, box, preset = picture_of((9, 21), 3), (0, 0, 7, 20), JointBilateralPreset(2.0, 0.5, 3)
    maps = maps_of((3, 4), 3)
    changed = maps.copy()
    changed[:, 2] = np.nan
    np.testing.assert_array_equal(
        joint_bilateral_maps(maps, picture, box, PATCH, preset),
        joint_bilateral_maps(changed, picture, box, PATCH, preset),
    )


def test_an_edge_of_the_picture_becomes_one_of_the_map() -> None:
    """Between patches of two colours a pixel takes the value of its own colour, in grey and in colour."""
    maps = np.array([[[0.0, 0.0, 1.0, 1.0]] * 4], np.float32)
    for dark, bright in ((40, 200), ((200, 30, 30), (30, 30, 200))):
        picture = np.full((16, 20, 3), dark, np.uint8)
        picture[:, 8:] = bright  # two columns before the patches change
        upsampled = joint_bilateral_maps(maps, picture, (0, 0, 16, 20), PATCH, JointBilateralPreset(1.0, 0.1))
        np.testing.assert_array_equal(upsampled[0] > 0.5, np.broadcast_to(np.arange(20) >= 8, (16, 20)))


def test_blocks_change_nothing_but_rounding_and_threads_nothing() -> None:
    picture, maps, box = picture_of((31, 44), 5), maps_of((5, 6), 5), (0, 0, 20, 30)
    whole = joint_bilateral_maps(maps, picture, box, PATCH, MEASURED_JBU)
    np.testing.assert_allclose(
        joint_bilateral_maps(maps, picture, box, PATCH, MEASURED_JBU, block_values=1), whole, atol=1e-6
    )
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            np.testing.assert_array_equal(joint_bilateral_maps(maps, picture, box, PATCH, MEASURED_JBU), whole)
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


@pytest.mark.slow
def test_memory_of_a_large_picture_is_bounded() -> None:
    """24 megapixels and two maps of float32 need 192 MB besides the picture."""
    program = (
        "import resource, numpy as np\n"
        "from maskmill.stages.refine.joint_bilateral import joint_bilateral_maps\n"
        "from maskmill.stages.refine.presets import parse_jbu\n"
        "picture = np.zeros((4000, 6000, 3), np.uint8)\n"
        "maps = np.zeros((2, 28, 28), np.float32)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "joint_bilateral_maps(maps, picture, (0, 0, 392, 392), (14, 14), parse_jbu('1,0.1,1'))\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(ran.stdout) < 192 + 250


def test_a_preset_is_read_from_its_text() -> None:
    assert parse_jbu("") == MEASURED_JBU
    for preset in (MEASURED_JBU, JointBilateralPreset(0.5, 0.05), JointBilateralPreset(0.5, 0.05, 7)):
        assert parse_jbu(str(preset)) == preset
    assert parse_jbu(" 0.6, 0.2 ").radius == 2
    for text in ("wide", "1", "1,2,3,4", "1,0.1,0.5", "0,0.1", "1,-1", "nan,1", "1,0.1,-1"):
        with pytest.raises(ConfigError, match=r"--preset .*jbu"):
            parse_jbu(text)


def test_a_mask_moves_to_the_outline_of_the_picture(reference: Path) -> None:
    """An aeroplane whose true mask was averaged over 28 × 28 patches."""
    from PIL import Image

    from maskmill.stages.maps.upsampling import upsample_maps

    folder, box = reference / "data/voc-mini", (0, 0, 392, 392)
    picture = np.array(Image.open(folder / "JPEGImages/2007_000243.jpg").convert("RGB"))
    truth_HW = np.array(Image.open(folder / "SegmentationClass/2007_000243.png"))
    mask = Image.fromarray((truth_HW == 1).astype(np.float32)).resize((28, 28), Image.Resampling.BOX)
    maps = np.array(mask)[None]

    def iou(map_HW: np.ndarray) -> float:
        judged = truth_HW != 255
        one, other = (map_HW > 0.5) & judged, (truth_HW == 1) & judged
        return float((one & other).sum() / (one | other).sum())

    plain = upsample_maps(maps, truth_HW.shape, box, (14, 14), False)
    along_colours = joint_bilateral_maps(maps, picture, box, (14, 14), JointBilateralPreset(1.0, 0.1))
    assert iou(along_colours[0]) > iou(plain[0]) + 0.02
