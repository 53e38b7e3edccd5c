"""Pillow as this project needs it: quiet, strict, without a pixel limit of its own, its faults named by a reason.

Readers are called directly. `Image.open` would try every format that Pillow knows, among them some that start other
programs (EPS), and would warn about large pictures before their size can be judged here.
"""

import re
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO

from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    Image,
    ImageFile,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from ..errors import Reason, RowFailed
from .containers import ends_early, jpeg2000_ends_early, png_essentials

# JPEG's own class, not its factory: the further pictures of a multi-picture file (MPO) are previews and depth maps.
_READERS: dict[str, type[ImageFile.ImageFile]] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "PPM": PpmImagePlugin.PpmImageFile,
    "JPEG2000": Jpeg2KImagePlugin.Jpeg2KImageFile,
    "AVIF": AvifImagePlugin.AvifImageFile,
}

# What Pillow's readers raise on bytes that are not what they should be; tests mutate files of every format to hold it.
_FAULTS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    AssertionError,
    RuntimeError,
    EOFError,
    struct.error,
    zlib.error,
)
_CUT = (
    EOFError,
    IndexError,
    struct.error,
)  # what Pillow's SyntaxError or OSError stands for where a header lacks bytes
_SAYS_CUT = re.compile("truncated|not enough", re.IGNORECASE)

# Remarks on metadata that nobody here reads. Category and module leave everything else its warnings, and an
# application its DecompressionBombWarning. A filter, because `catch_warnings` swaps a list that all threads share.
_QUIET = ("ignore", None, UserWarning, re.compile(r"PIL\."), 0)

_switching = threading.Lock()
_num_inside = 0
_max_pixels_before: list[int] = []  # what the application had set, while it is lifted
_load_truncated_before: list[bool] = []


def open_image(data: bytes, with_pixels: bool) -> tuple[ImageFile.ImageFile, int]:
    """The file's header as Pillow reads it, found by content, and its number of frames; no pixel is decoded.

    `with_pixels=False` may leave the pixels out, so that `load` fails. Call it, and whatever is done with the image,
    inside `reading`.
    """
    for name, reader in _READERS.items():
        accept = Image.OPEN[name][1]
        accepted = accept(data[:16]) if accept else True
        if isinstance(accepted, str):
            raise RowFailed(Reason.UNDECODABLE, accepted)  # Pillow was built without this format
        if accepted and name == "JPEG2000" and jpeg2000_ends_early(data):
            raise RowFailed(Reason.TRUNCATED, f"a JPEG 2000 without its end, {len(data)} bytes long")
        if accepted and name == "PNG":
            still, num_frames = png_essentials(data, with_pixels)
            return reader(BytesIO(still)), num_frames
        if accepted:
            image = reader(BytesIO(data))
            return image, _num_frames(image)
    raise RowFailed(Reason.UNDECODABLE, f"not a picture of a kind that is read here ({', '.join(_READERS)})")


def orientation_of(image: ImageFile.ImageFile) -> int:
    """The EXIF orientation, 1–8; 1 where the file holds none, or one that means nothing."""
    try:
        # The base class's: PngImageFile decodes the picture first, in search of chunks that are in front already.
        value = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
    except _FAULTS:
        return 1
    return int(value) if value in range(1, 9) else 1


@contextmanager
def reading(data: bytes, max_pixels: int) -> Iterator[None]:
    """Inside, Pillow is quiet and strict, knows no pixel limit below `max_pixels`, and fails as RowFailed only."""
    if not warnings.filters or warnings.filters[0] != _QUIET:
        warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    with _lift_pillow_limits(max_pixels):
        try:
            yield
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise RowFailed(Reason.TOO_LARGE, f"more than {max_pixels} pixels in all") from error
        except _FAULTS as error:
            if "out of memory" in str(error):
                raise MemoryError(str(error)) from error  # the machine's fault, not the picture's
            raise RowFailed(_reason_of(error, data), str(error) or type(error).__name__) from error


def _reason_of(error: BaseException, data: bytes) -> Reason:
    if "pixel mode" in str(error):  # a TIFF of 64-bit or several float channels
        return Reason.DTYPE
    if isinstance(error.__cause__, _CUT) or _SAYS_CUT.search(str(error)):
        return Reason.TRUNCATED
    return Reason.TRUNCATED if ends_early(data) else Reason.UNDECODABLE


def _num_frames(image: ImageFile.ImageFile) -> int:
    try:
        return int(getattr(image, "n_frames", 1))
    except _FAULTS:  # a later frame is broken; the first is the one that is used
        image.seek(0)
        return 1


@contextmanager
def _lift_pillow_limits(max_pixels: int) -> Iterator[None]:
    """Pillow's two process-wide switches as needed here, where they are not; the last to leave puts them back.

    Only an application that lowered the pixel limit or asked for truncated pictures, or a user who raised ours, makes
    a difference; then the application's own threads see it too, as long as a picture is being read.
    """
    global _num_inside
    with _switching:
        _num_inside += 1
        if Image.MAX_IMAGE_PIXELS is not None and max_pixels > Image.MAX_IMAGE_PIXELS:
            _max_pixels_before[:] = [Image.MAX_IMAGE_PIXELS]
            Image.MAX_IMAGE_PIXELS = None
        if ImageFile.LOAD_TRUNCATED_IMAGES:
            _load_truncated_before[:] = [True]
            ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        yield
    finally:
        with _switching:
            _num_inside -= 1
            if _num_inside == 0 and _max_pixels_before:
                Image.MAX_IMAGE_PIXELS = _max_pixels_before.pop()
            if _num_inside == 0 and _load_truncated_before:
                ImageFile.LOAD_TRUNCATED_IMAGES = _load_truncated_before.pop()
