"""Indexed label maps: the indices survive whatever the palette, and nothing else passes for a mask."""

import struct
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from builders.picture_zoo import blank_png, encoded, exif_of, png_chunk, raw_png, scene
from maskmill.manifests.errors import Reason, RowFailed
from maskmill.manifests.pictures.decoder import decode_picture
from maskmill.manifests.pictures.limits import Limits
from maskmill.manifests.pictures.palette import VOC_PALETTE, decode_label_map, encode_label_map, rotate_label_map

label_maps = arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40)))


def failure(data: bytes, limits: Limits | None = None) -> RowFailed:
    with pytest.raises(RowFailed) as failed:
        decode_label_map(data, limits or Limits())
    return failed.value


def all_indices() -> np.ndarray:
    return np.arange(256, dtype=np.uint8).reshape(8, 32)


@given(label_maps)
def test_a_label_map_comes_back_as_it_was(label_HW: np.ndarray) -> None:
    data = encode_label_map(label_HW)
    assert np.array_equal(decode_label_map(data), label_HW)
    assert encode_label_map(label_HW.copy(order="F")) == data


def test_it_is_a_palette_png_of_eight_bits() -> None:
    image = Image.open(BytesIO(encode_label_map(np.zeros((3, 5), np.uint8))))
    assert (image.format, image.mode, image.size) == ("PNG", "P", (5, 3))
    assert image.getpalette() == list(VOC_PALETTE)


def test_the_palette_follows_the_rule_of_voc() -> None:
    for index in range(256):
        red = green = blue = 0
        rest = index
        for shift in range(7, -1, -1):
            red |= (rest & 1) << shift
            green |= (rest >> 1 & 1) << shift
            blue |= (rest >> 2 & 1) << shift
            rest >>= 3
        assert tuple(VOC_PALETTE[3 * index : 3 * index + 3]) == (red, green, blue)
    assert tuple(VOC_PALETTE[15 * 3 : 16 * 3]) == (192, 128, 128)  # a person
    assert tuple(VOC_PALETTE[765:]) == (224, 224, 192)  # the rim around objects


def test_the_masks_of_voc_hold_this_palette_and_come_back(reference: Path) -> None:
    masks = sorted((reference / "data/voc-mini").rglob("SegmentationClass/*.png"))
    assert masks
    for path in masks:
        data = path.read_bytes()
        image = Image.open(BytesIO(data))
        assert image.getpalette() == list(VOC_PALETTE)
        stored = np.asarray(image)
        assert np.array_equal(decode_label_map(data), stored)
        assert np.array_equal(decode_label_map(encode_label_map(stored)), stored)


def test_colours_do_not_matter() -> None:
    image = Image.fromarray(all_indices())
    image.putpalette(bytes(768))  # every index black
    assert np.array_equal(decode_label_map(encoded(image, "PNG", transparency=bytes(256))), all_indices())
    assert np.array_equal(decode_label_map(encoded(image, "TIFF")), all_indices())
    assert np.array_equal(decode_label_map(encoded(image, "BMP")), all_indices())


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "GIF"])
def test_grey_values_are_indices(kind: str) -> None:
    assert np.array_equal(decode_label_map(encoded(all_indices(), kind)), all_indices())


def test_one_bit_is_zero_and_one() -> None:
    label_HW = all_indices() % 3 == 0
    for kind in ("PNG", "BMP"):
        assert np.array_equal(decode_label_map(encoded(Image.fromarray(label_HW), kind)), label_HW.astype(np.uint8))


@pytest.mark.parametrize(
    ("depth", "row", "expected"), [(2, b"\x1b\x1b", [0, 1, 2, 3]), (4, b"\x01\x2f\x01\x2f", [0, 1, 2, 15])]
)
@pytest.mark.parametrize("colour", [0, 3], ids=["grey", "palette"])
def test_few_bits_are_not_stretched(depth: int, colour: int, row: bytes, expected: list[int]) -> None:
    palette = [png_chunk(b"PLTE", bytes(48))] if colour == 3 else []
    data = raw_png(8, 4, depth, colour, (b"\0" + row) * 4, *palette)
    assert decode_label_map(data).tolist() == [expected * 2] * 4


def test_sixteen_bits_pass_where_the_values_fit() -> None:
    assert np.array_equal(decode_label_map(encoded(all_indices().astype(np.uint16), "PNG")), all_indices())
    fault = failure(encoded(all_indices().astype(np.uint16) + 45, "PNG"))
    assert (fault.reason, "300" in fault.detail) == (Reason.MASK_VALUES, True)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "CMYK", "F", "I"])
def test_anything_but_indices_is_refused(mode: str) -> None:
    image = Image.fromarray(scene()).convert("L").convert(mode)
    fault = failure(encoded(image, "TIFF"))
    assert fault.reason == Reason.MASK_UNDECODABLE
    assert mode in fault.detail
    if mode == "RGB":
        assert "masks must be indexed" in fault.detail


@pytest.mark.parametrize("kind", ["JPEG", "JPEG2000", "AVIF"])
def test_lossy_files_are_refused(kind: str) -> None:
    fault = failure(encoded(scene()[..., 0], kind))
    assert (fault.reason, "PNG" in fault.detail) == (Reason.MASK_UNDECODABLE, True)
    assert failure(encoded(scene()[..., 0], "TIFF", compression="jpeg")).reason == Reason.MASK_UNDECODABLE


def test_a_tiff_in_which_zero_is_white_is_refused() -> None:
    data = encoded(all_indices(), "TIFF")
    white_zero = data.replace(struct.pack("<HHIHH", 262, 3, 1, 1, 0), struct.pack("<HHIHH", 262, 3, 1, 0, 0))
    assert white_zero != data
    assert (failure(white_zero).reason, "white" in failure(white_zero).detail) == (Reason.MASK_UNDECODABLE, True)


@pytest.mark.parametrize(
    "data", [b"", b"<html>", encode_label_map(all_indices())[:-40], encode_label_map(all_indices())[:-2]]
)
def test_a_broken_mask_has_a_reason_of_masks(data: bytes) -> None:
    assert failure(data).reason == Reason.MASK_UNDECODABLE


def test_the_limit_of_pixels_holds_for_masks_and_no_other() -> None:
    assert failure(blank_png(10_000, 9_000)).reason == Reason.TOO_LARGE
    assert failure(blank_png(20, 10), Limits(max_pixels=199)).reason == Reason.TOO_LARGE
    assert decode_label_map(blank_png(1, 1)).tolist() == [[0]]
    assert decode_label_map(blank_png(2_000, 1)).shape == (1, 2_000)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_raw_mask_turns_as_its_picture_does(orientation: int) -> None:
    raw_HW = scene()[..., 0]
    picture = encoded(np.repeat(raw_HW[..., None], 3, axis=2), "PNG", exif=exif_of(orientation))
    pixels_HWC, facts = decode_picture(picture)
    assert np.array_equal(rotate_label_map(raw_HW, orientation), pixels_HWC[..., 0])
    assert facts.raw_size == raw_HW.shape[::-1]
