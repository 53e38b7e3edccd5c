"""The one decoder: every kind of file in the zoo, every orientation, every way to lie about a size."""

import struct
import subprocess
import sys
import threading
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image, ImageFile

from builders.picture_zoo import (
    HEIGHT,
    WIDTH,
    ZooPicture,
    encoded,
    exif_of,
    grey_ramp,
    png_chunk,
    raw_png,
    scene,
    with_late_chunk,
    zoo,
)
from maskmill.manifests.errors import ConfigError, Reason, RowFailed
from maskmill.manifests.files.place import place
from maskmill.manifests.pictures.decoder import PictureFacts, decode_picture, inspect_picture
from maskmill.manifests.pictures.limits import DEFAULT_LIMITS, Limits
from maskmill.manifests.pictures.pillow import reading

# How a picture must be stored so that each orientation turns it upright: EXIF names the sides that the first row and
# the first column show.
STORED: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.swapaxes(0, 1),
    6: lambda upright: np.rot90(upright, 1),  # first row: the right side
    7: lambda upright: upright[::-1, ::-1].swapaxes(0, 1),
    8: lambda upright: np.rot90(upright, -1),  # first row: the left side
}


def outcome(read: Callable[[bytes], object], data: bytes) -> Reason | None:
    try:
        read(data)
    except RowFailed as fault:
        return fault.reason
    return None


@pytest.mark.parametrize("picture", zoo().values(), ids=list(zoo()))
def test_every_picture_of_the_zoo_has_its_outcome(picture: ZooPicture, tmp_path: Path) -> None:
    (tmp_path / picture.name).write_bytes(picture.data)
    data = place(tmp_path).read(picture.name)
    assert outcome(inspect_picture, data) == picture.header
    assert outcome(decode_picture, data) == picture.reason
    if picture.header is None:
        width, height = picture.size
        facts = PictureFacts(width, height, picture.mode, picture.orientation, picture.frames, picture.format)
        assert inspect_picture(data) == facts
    if picture.reason is None:
        pixels_HWC, facts = decode_picture(data)
        assert facts == inspect_picture(data)
        assert pixels_HWC.dtype == np.uint8
        assert pixels_HWC.shape == (*picture.size[::-1], 3)
        assert pixels_HWC.flags.writeable
        assert pixels_HWC.flags.c_contiguous
        if picture.mean is not None:
            assert pixels_HWC.mean() == pytest.approx(picture.mean, abs=1)


def test_reasons_are_told_in_words() -> None:
    with pytest.raises(RowFailed) as failed:
        inspect_picture(zoo()["10000x9000.png"].data)
    assert failed.value.detail == "10000×9000 pixels, at most 89478485 in all are allowed"
    with pytest.raises(RowFailed) as failed:
        inspect_picture(b"<html>")
    assert failed.value.detail.startswith("not a picture")
    assert "(JPEG, PNG," in failed.value.detail


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("kind", "options", "tolerance"),
    [
        ("JPEG", {"quality": 100, "subsampling": 0}, 4),
        ("PNG", {}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("TIFF", {}, 0),
        ("TIFF", {"compression": "tiff_lzw"}, 0),
        ("AVIF", {"quality": 100, "subsampling": "4:4:4"}, 4),
    ],
)
def test_orientation_is_applied(kind: str, options: dict[str, object], tolerance: int, orientation: int) -> None:
    stored = np.ascontiguousarray(STORED[orientation](scene()))
    data = encoded(stored, kind, exif=exif_of(orientation), **options)
    pixels_HWC, facts = decode_picture(data)
    assert np.abs(pixels_HWC.astype(int) - scene()).max() <= tolerance
    assert (facts.width, facts.height, facts.orientation) == (WIDTH, HEIGHT, orientation)
    assert facts.raw_size == stored.shape[1::-1]
    assert inspect_picture(data) == facts


@pytest.mark.parametrize("is_late", [False, True])
@pytest.mark.parametrize(
    "chunk",
    [
        png_chunk(b"eXIf", exif_of(8).removeprefix(b"Exif\0\0")),
        png_chunk(b"tEXt", b"Raw profile type exif\0\nexif\n" + b"%8d\n" % len(exif_of(8)) + exif_of(8).hex().encode()),
        png_chunk(b"iTXt", b'XML:com.adobe.xmp\0\0\0\0\0<rdf:Description tiff:Orientation="8"/>'),
    ],
    ids=["eXIf", "ImageMagick", "XMP"],
)
def test_orientation_of_a_png_wherever_it_stands(chunk: bytes, is_late: bool) -> None:
    png = encoded(np.ascontiguousarray(STORED[8](scene())), "PNG")
    data = with_late_chunk(png, chunk) if is_late else png[:33] + chunk + png[33:]
    pixels_HWC, facts = decode_picture(data)
    assert np.array_equal(pixels_HWC, scene())
    assert inspect_picture(data) == facts


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "TIFF"])
def test_orientation_in_xmp_alone(kind: str) -> None:
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    options = {"tiffinfo": {700: xmp}} if kind == "TIFF" else {"xmp": xmp}
    data = encoded(np.ascontiguousarray(STORED[6](scene())), kind, **options)
    pixels_HWC, facts = decode_picture(data)
    assert facts == inspect_picture(data)
    assert (facts.orientation, facts.width, facts.height) == (6, WIDTH, HEIGHT)
    assert np.abs(pixels_HWC.astype(int) - scene()).mean() < 4


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_means_nothing_is_none(orientation: int) -> None:
    data = encoded(scene(), "PNG", exif=exif_of(orientation))
    pixels_HWC, facts = decode_picture(data)
    assert (facts.orientation, facts.raw_size) == (1, (WIDTH, HEIGHT))
    assert np.array_equal(pixels_HWC, scene())


def grey_tiff(samples: np.ndarray, bits: int, photometric: int, order: str = "<") -> bytes:
    """An uncompressed grey TIFF, whatever its depth and whichever end is white."""
    height, width = samples.shape
    packed = "".join(format(int(value), f"0{bits}b") for value in samples.ravel())
    raw = int(packed, 2).to_bytes(len(packed) // 8) if bits != 16 else samples.astype(f"{order}u2").tobytes()
    values = {
        256: width,
        257: height,
        258: bits,
        259: 1,
        262: photometric,
        273: 134,
        277: 1,
        278: height,
        279: len(raw),
    }
    entries = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in values.items())
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(values)) + entries + bytes(4)
    return head.ljust(134, b"\0") + raw


def grey_pgm(samples: np.ndarray, largest: int) -> bytes:
    return b"P5\n%d %d\n%d\n" % (*samples.shape[::-1], largest) + samples.astype(">u2").tobytes()


@pytest.mark.parametrize(
    ("data", "largest", "is_white_zero"),
    [
        (encoded(grey_ramp(), "PNG"), 65535, False),
        (encoded(grey_ramp(), "TIFF"), 65535, False),
        (grey_tiff(grey_ramp(), 16, 1, ">"), 65535, False),
        (grey_tiff(grey_ramp(), 16, 0), 65535, True),
        (grey_tiff(np.arange(4096).reshape(64, 64), 12, 1), 4095, False),
        (grey_pgm(grey_ramp(), 65535), 65535, False),
    ],
    ids=["png", "tiff", "big-endian tiff", "white-is-zero tiff", "12-bit tiff", "pgm"],
)
def test_deep_grey_is_scaled_and_rounded(data: bytes, largest: int, is_white_zero: bool) -> None:
    values = np.arange(largest + 1)
    expected = np.rint(values * 255 / largest).astype(np.uint8)
    pixels_HWC, _ = decode_picture(data)
    for channel in range(3):
        assert np.array_equal(pixels_HWC[..., channel].ravel(), expected[::-1] if is_white_zero else expected)
    assert pixels_HWC.mean() == pytest.approx(127.5, abs=0.01)


@pytest.mark.parametrize(
    ("depth", "colour", "key", "row", "expected"),
    [
        (2, 0, struct.pack(">H", 1), b"\x1b\x1b", [0, 255, 170, 255]),  # samples 0 1 2 3, and 1 is transparent
        (16, 0, struct.pack(">H", 514), struct.pack(">8H", *[0, 514, 515, 65535] * 2), [0, 255, 2, 255]),
        (
            16,
            2,
            struct.pack(">3H", 513, 513, 513),
            struct.pack(">24H", *[0] * 3, *[513] * 3, *[1028] * 18),
            [0, 255, 4, 4],
        ),
    ],
    ids=["2-bit grey", "16-bit grey", "16-bit rgb"],
)
def test_a_transparent_colour_becomes_white(
    depth: int, colour: int, key: bytes, row: bytes, expected: list[int]
) -> None:
    data = raw_png(8, 8, depth, colour, (b"\0" + row) * 8, png_chunk(b"tRNS", key))
    pixels_HWC, _ = decode_picture(data)
    assert pixels_HWC[0, :4].tolist() == [[value] * 3 for value in expected]


def test_later_pictures_of_a_broken_animation_do_not_matter() -> None:
    data = bytearray(zoo()["frames.tif"].data)
    (second,) = struct.unpack_from("<I", data, 8 + 2 + 12 * struct.unpack_from("<H", data, 8)[0])
    data[second : second + 200] = bytes(200)
    pixels_HWC, _ = decode_picture(bytes(data))
    assert (pixels_HWC == 30).all()


def small_files() -> dict[str, bytes]:
    """One file of a few hundred bytes per way of storing pixels."""
    pixels = scene()[:16, :24]
    options: dict[str, dict[str, object]] = {
        "JPEG": {"exif": exif_of(6)},
        "PNG": {"exif": exif_of(6)},
        "WEBP": {"exif": exif_of(6)},
        "TIFF": {},
        "TIFF lzw": {"compression": "tiff_lzw"},
        "BMP": {},
        "PPM": {},
        "JPEG2000": {},
        "JPEG2000 bare": {"no_jp2": True},
        "AVIF": {"exif": exif_of(6)},
    }
    files = {name: encoded(pixels, name.split()[0], **chosen) for name, chosen in options.items()}
    files["GIF"] = encoded(Image.fromarray(pixels).quantize(16), "GIF")
    for kind in ("GIF", "PNG", "WEBP"):
        frames = [Image.fromarray(pixels[::-1]), Image.fromarray(255 - pixels)]
        files[f"{kind} animation"] = encoded(pixels, kind, save_all=True, append_images=frames)
    compressed = zlib.compress(grey_ramp().tobytes())
    tiff = grey_tiff(grey_ramp(), 16, 1)
    for tag, value in ((259, 1), (279, 131072)):
        new = {259: 8, 279: len(compressed)}[tag]
        tiff = tiff.replace(struct.pack("<HHII", tag, 4, 1, value), struct.pack("<HHII", tag, 4, 1, new))
    files["TIFF directory first"] = tiff[:134] + compressed
    return files


@pytest.mark.parametrize("name", small_files())
def test_a_file_cut_anywhere_is_truncated(name: str) -> None:
    data = small_files()[name]
    assert outcome(decode_picture, data) is None
    step = 1 if len(data) < 2_000 else 997
    told = {stop: outcome(decode_picture, data[:stop]) for stop in range(16, len(data), step)}
    # A GIF is whole without its end mark, and an animation without its later frames.
    whole = 300 if name == "GIF animation" else len(data) - 2 if name.startswith("GIF") else len(data)
    assert [stop for stop, reason in told.items() if reason != Reason.TRUNCATED and stop < whole] == []


@pytest.mark.parametrize("name", [name for name, data in small_files().items() if len(data) < 2_000])
def test_a_damaged_byte_fails_with_a_reason_or_not_at_all(name: str) -> None:
    data = small_files()[name]
    for at in range(min(len(data), 300)):
        for value in (0, 255):
            assert_only_reasons(data[:at] + bytes([value]) + data[at + 1 :])


@pytest.mark.parametrize("name", ["palette without colours", "header not first", "no pixels", "chunk of garbage"])
def test_pngs_against_the_rules_are_undecodable(name: str) -> None:
    rows = b"\0\1\2\3\4\5\6\7\0" * 8
    png = raw_png(8, 8, 8, 3, rows)
    data = {
        "palette without colours": png,
        "header not first": encoded(scene(), "PNG")[:8] + png_chunk(b"CgBI", bytes(4)) + encoded(scene(), "PNG")[8:],
        "no pixels": png[:33] + png[-12:],
        "chunk of garbage": png[:33] + bytes(20) + png[33:],
    }[name]
    assert outcome(decode_picture, data) == Reason.UNDECODABLE


def test_pixels_of_an_unknown_range_are_told_from_nonsense() -> None:
    for bits in (32, 64):
        assert outcome(inspect_picture, grey_tiff(np.zeros((16, 16)), bits, 1)) == Reason.DTYPE


@pytest.mark.parametrize("name", ["plain.jpg", "plain.png", "plain.tif", "plain.bmp", "plain.jp2", "plain.webp"])
def test_the_header_is_read_without_a_pixel(name: str) -> None:
    data = zoo()[name].data
    start, stop = len(data) // 2, len(data) - 2  # the end mark stays
    if name == "plain.png":
        start = data.index(b"IDAT") + 4
        stop = start + int.from_bytes(data[start - 8 : start - 4])
    without_pixels = data[:start] + b"\x55" * (stop - start) + data[stop:]
    assert inspect_picture(without_pixels) == inspect_picture(data)
    if name == "plain.png":  # other decoders make something of it
        assert outcome(decode_picture, without_pixels) is not None


def test_limits_decide_by_the_header() -> None:
    def with_size(width: int, height: int, limits: Limits = DEFAULT_LIMITS) -> Reason | None:
        data = encoded(np.zeros((height, width), np.uint8), "PNG")
        inspected = outcome(lambda data: inspect_picture(data, limits), data)
        assert outcome(lambda data: decode_picture(data, limits), data) == inspected
        return inspected

    assert with_size(8, 8) is None
    assert with_size(8, 7) == Reason.TOO_SMALL
    assert with_size(256, 8) is None
    assert with_size(257, 8) == Reason.ASPECT
    assert with_size(8, 257) == Reason.ASPECT
    assert with_size(20, 10, Limits(max_pixels=200)) is None
    assert with_size(20, 11, Limits(max_pixels=200)) == Reason.TOO_LARGE
    assert with_size(1, 1, Limits(min_side=1)) is None


def test_the_default_limit_is_not_above_the_threshold_of_pillow() -> None:
    assert Image.MAX_IMAGE_PIXELS is not None
    assert DEFAULT_LIMITS.max_pixels <= Image.MAX_IMAGE_PIXELS
    assert DEFAULT_LIMITS.max_pixels < 90_000_000


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"max_pixels": 0}, ["max_pixels", "0", "at least 1"]),
        ({"min_side": 0}, ["min_side", "0", "at least 1"]),
        ({"max_aspect": 0.5}, ["max_aspect", "0.5", "at least 1"]),
        ({"max_aspect": float("nan")}, ["max_aspect", "nan"]),
        ({"min_side": 100, "max_pixels": 9_999}, ["--min-side", "100", "--max-pixels", "9999", "10000"]),
    ],
)
def test_limits_that_cannot_work_are_refused(limits: dict[str, float], words: list[str]) -> None:
    with pytest.raises(ConfigError) as refused:
        Limits(**limits)  # type: ignore[arg-type]
    assert all(word in str(refused.value) for word in words)


def webp_with_canvas(side: int) -> bytes:
    """A small animation that claims a canvas of this many pixels squared."""
    frames = [Image.new("RGB", (16, 16), (value,) * 3) for value in (30, 120)]
    data = bytearray(encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:]))
    data[24:30] = (side - 1).to_bytes(3, "little") * 2
    return bytes(data)


BOMBS = {
    "90 megapixels": zoo()["10000x9000.png"].data,
    "196 megapixels": zoo()["14000x14000.png"].data,
    "WebP below Pillow's limit": webp_with_canvas(10_000),
    "WebP above Pillow's limit": webp_with_canvas(16_383),
    "GIF": b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + zoo()["frames.gif"].data[13:],
    "TIFF": grey_tiff(np.zeros((8, 8)), 8, 1).replace(
        struct.pack("<HHII", 256, 4, 1, 8), struct.pack("<HHII", 256, 4, 1, 10**9)
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_by_its_header_and_costs_nothing(name: str, tmp_path: Path) -> None:
    (tmp_path / "warm").write_bytes(zoo()["plain.png"].data)
    (tmp_path / "bomb").write_bytes(BOMBS[name])
    program = """
import resource, sys
from maskmill.manifests.errors import RowFailed
from maskmill.manifests.pictures.decoder import decode_picture, inspect_picture
from maskmill.manifests.files.place import place
warm, bomb = (place(sys.argv[1]).read(name) for name in ("warm", "bomb"))
decode_picture(warm)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for read in (inspect_picture, decode_picture):
    try:
        read(bomb)
    except RowFailed as fault:
        print(fault.reason)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    command = [sys.executable, "-W", "error", "-c", program, str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    inspected, decoded, growth_kib = run.stdout.split()
    assert (inspected, decoded, run.stderr) == ("too_large", "too_large", "")
    assert int(growth_kib) < 8 * 1024


@pytest.fixture
def pillow_switches() -> object:
    """Puts Pillow's process-wide switches back."""
    before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
    yield
    Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = before


@pytest.mark.parametrize("name", ["plain.jpg", "plain.png", "plain.tif", "plain.webp", "frames.gif"])
@pytest.mark.usefixtures("pillow_switches")
def test_only_our_own_limit_counts(name: str) -> None:
    data = zoo()[name].data
    expected = decode_picture(data)[0]
    for limit in (100, WIDTH * HEIGHT - 1):  # Pillow would raise at twice its limit, and warn above it
        Image.MAX_IMAGE_PIXELS = limit
        assert np.array_equal(decode_picture(data)[0], expected)
        assert inspect_picture(data).width == WIDTH
        assert limit == Image.MAX_IMAGE_PIXELS
    with pytest.raises(Image.DecompressionBombWarning):
        Image.open(BytesIO(data))


@pytest.mark.usefixtures("pillow_switches")
def test_the_last_to_leave_puts_the_limit_back() -> None:
    Image.MAX_IMAGE_PIXELS = 100
    with reading(b"", 1_000):
        with reading(b"", 1_000):
            assert Image.MAX_IMAGE_PIXELS is None
        assert Image.MAX_IMAGE_PIXELS is None
    assert Image.MAX_IMAGE_PIXELS == 100


@pytest.mark.usefixtures("pillow_switches")
def test_an_application_keeps_its_limit_while_ours_is_not_above_it() -> None:
    seen = set()
    Image.MAX_IMAGE_PIXELS = WIDTH * HEIGHT
    stop = threading.Event()

    def watch() -> None:
        while not stop.is_set():
            seen.add(Image.MAX_IMAGE_PIXELS)

    watcher = threading.Thread(target=watch)
    watcher.start()
    for _ in range(50):
        decode_picture(zoo()["plain.tif"].data, Limits(max_pixels=WIDTH * HEIGHT))
    stop.set()
    watcher.join()
    assert seen == {WIDTH * HEIGHT}


@pytest.mark.usefixtures("pillow_switches")
def test_truncated_pictures_are_refused_where_an_application_allows_them() -> None:
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    for name in ("half.jpg", "99 percent.jpg", "all but 2 bytes.jpg", "half.png"):
        assert outcome(decode_picture, zoo()[name].data) == Reason.TRUNCATED
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


@pytest.mark.usefixtures("pillow_switches")
def test_threads_decode_at_once_to_the_same_pixels() -> None:
    Image.MAX_IMAGE_PIXELS = 1000  # so that threads meet in changing it and putting it back
    good = [picture.data for picture in zoo().values() if picture.reason is None]
    expected = [decode_picture(data)[0].tobytes() for data in good]
    with ThreadPoolExecutor(8) as threads:
        for _ in range(5):
            assert list(threads.map(lambda data: decode_picture(data)[0].tobytes(), good)) == expected
    assert Image.MAX_IMAGE_PIXELS == 1000


def jpeg_with_broken_exif() -> bytes:
    """EXIF that promises 500 tags and ends; Pillow warns of it while it opens the file."""
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 500) + bytes(30)
    jpeg = encoded(scene(), "JPEG")
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]


def tiff_with_two_widths() -> bytes:
    """A tag that should hold one value and holds two; Pillow warns of it."""
    return grey_tiff(np.full((16, 16), 7), 8, 1).replace(
        struct.pack("<HHII", 278, 4, 1, 16), struct.pack("<HHIHH", 278, 3, 2, 16, 16)
    )


@pytest.mark.parametrize("data", [jpeg_with_broken_exif(), tiff_with_two_widths()], ids=["jpeg", "tiff"])
def test_remarks_of_pillow_are_neither_errors_nor_noise(data: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserWarning):  # the file does make Pillow speak
        Image.open(BytesIO(data)).load()
    for _ in range(2):
        assert decode_picture(data)[1] == inspect_picture(data)
    with warnings.catch_warnings():
        warnings.simplefilter("always")  # put before our own filter, which must come to the front again
        decode_picture(data)
    assert capfd.readouterr() == ("", "")


def test_an_application_still_hears_of_bombs() -> None:
    inspect_picture(zoo()["plain.jpg"].data)
    with pytest.raises(Image.DecompressionBombWarning):
        Image.open(BytesIO(zoo()["10000x9000.png"].data))


def test_out_of_memory_is_no_fault_of_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(image: Image.Image) -> None:
        raise OSError("out of memory when reading image file")

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", load)
    with pytest.raises(MemoryError):
        decode_picture(zoo()["plain.png"].data)


def assert_only_reasons(data: bytes) -> None:
    """Success or RowFailed, and never a header that promises other sizes than the pixels have."""
    limits = Limits(max_pixels=10**6)
    header: PictureFacts | Reason
    try:
        header = inspect_picture(data, limits)
    except RowFailed as fault:
        header = fault.reason
    try:
        pixels_HWC, facts = decode_picture(data, limits)
    except RowFailed:
        return
    assert header == facts
    assert pixels_HWC.shape == (facts.height, facts.width, 3)


@given(st.binary(max_size=300))
def test_random_bytes_fail_with_a_reason(data: bytes) -> None:
    assert_only_reasons(data)


SMALL = sorted(picture.name for picture in zoo().values() if len(picture.data) < 200_000)


@settings(max_examples=400)
@given(
    st.sampled_from(SMALL),
    st.lists(
        st.tuples(st.floats(0, 1), st.sampled_from(["flip", "set", "drop", "insert", "cut"]), st.integers(0, 255)),
        max_size=6,
    ),
)
def test_damaged_files_fail_with_a_reason(name: str, damages: list[tuple[float, str, int]]) -> None:
    data = bytearray(zoo()[name].data)
    for where, what, value in damages:
        at = int(where**3 * max(0, len(data) - 1))  # headers break in more interesting ways than pixels
        if what == "flip" and data:
            data[at] ^= 1 << (value % 8)
        elif what == "set" and data:
            data[at] = value
        elif what == "drop":
            del data[at : at + value % 9]
        elif what == "insert":
            data[at:at] = bytes([value]) * (value % 9)
        elif what == "cut" and value < 32:
            del data[at:]
    assert_only_reasons(bytes(data))
