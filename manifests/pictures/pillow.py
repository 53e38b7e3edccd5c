"""Pillow as this project uses it: quiet, strict, without its own pixel limit, with errors mapped to reasons.

Readers are called directly. `Image.open` would try all formats, including some that start programs (EPS), and would
warn about large pictures before the size is checked here.
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

# JPEG's class, not its factory: further pictures of a multi-picture file (MPO) are previews and depth maps.
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

# Errors of Pillow's readers on damaged bytes; tests mutate files of every format to check the list.
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
_CUT = (EOFError, IndexError, struct.error)  # causes of Pillow's errors when a header lacks bytes
_SAYS_CUT = re.compile("truncated|not enough", re.IGNORECASE)

# Silences Pillow's warnings on metadata, which is not used here; DecompressionBombWarning stays. A filter, because
# `catch_warnings` is not thread-safe.
_QUIET = ("ignore", None, UserWarning, re.compile(r"PIL\."), 0)

_switching = threading.Lock()
_num_inside = 0
_max_pixels_before: list[int] = []  # the application's limit while it is lifted
_load_truncated_before: list[bool] = []


def open_image(data: bytes, with_pixels: bool) -> tuple[ImageFile.ImageFile, int]:
    """Opens a picture by content and counts its frames; decodes no pixel.

    `with_pixels=False` may drop the pixels, so that `load` fails. Call this and use the image inside `reading`.
    """
    for name, reader in _READERS.items():
        accept = Image.OPEN[name][1]
        accepted = accept(data[:16]) if accept else True
        if isinstance(accepted, str):
            raise RowFailed(Reason.UNDECODABLE, accepted)  # Pillow was built without this format
        if accepted and name == "JPEG2000" and jpeg2000_ends_early(data):
            raise RowFailed(Reason.TRUNCATED, f"a JPEG 2000 without its end mark, {len(data)} bytes long")
        if accepted and name == "PNG":
            still, num_frames = png_essentials(data, with_pixels)
            return reader(BytesIO(still)), num_frames
        if accepted:
            image = reader(BytesIO(data))
            return image, _num_frames(image)
    raise RowFailed(Reason.UNDECODABLE, f"not a picture in a supported format ({', '.join(_READERS)})")


def orientation_of(image: ImageFile.ImageFile) -> int:
    """The EXIF orientation, 1–8; 1 if it is absent or invalid."""
    try:
        # Not PngImageFile's getexif, which decodes the picture first.
        value = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
    except _FAULTS:
        return 1
    return int(value) if value in range(1, 9) else 1


@contextmanager
def reading(data: bytes, max_pixels: int) -> Iterator[None]:
    """Inside the block Pillow is quiet and strict, allows `max_pixels`, and raises only RowFailed."""
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
    except _FAULTS:  # a later frame is broken; only the first is used
        image.seek(0)
        return 1


@contextmanager
def _lift_pillow_limits(max_pixels: int) -> Iterator[None]:
    """Sets Pillow's two process-wide switches as needed here; the last thread to leave restores them.

    They differ only if an application lowered the pixel limit or allowed truncated pictures, or a user raised ours. The
    application's threads then see the change while a picture is being read.
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
