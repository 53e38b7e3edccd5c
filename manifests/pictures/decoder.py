"""The only picture decoder: turns bytes into header facts or pixels, or fails the row with a reason.

It returns the first frame, upright (EXIF orientation applied), in three channels of 8 bits. Colour profiles are not
applied. The format is detected by content, never by name.

Letters: H W the upright picture.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8, UInt16
from PIL import Image, ImageFile

from ..errors import Reason, RowFailed
from .limits import DEFAULT_LIMITS, Limits
from .pillow import open_image, orientation_of, reading

BACKGROUND = 255  # white, behind transparent pixels

_TRANSPOSE = {  # EXIF orientation → transposition that turns the picture upright, as in PIL.ImageOps.exif_transpose
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_TIFF_WIDTH, _TIFF_HEIGHT, _TIFF_BITS, _TIFF_PHOTOMETRIC = 256, 257, 258, 262
_PNG_DEPTH_BYTE = 24
_LOSSLESS = ("PNG", "GIF", "BMP", "TIFF")
_LOSSY_IN_TIFF = ("jpeg", "tiff_jpeg", "webp")


@dataclass(frozen=True, slots=True)
class PictureFacts:
    """Facts from the header. Width and height are those of the upright picture."""

    width: int
    height: int
    mode: str  # as stored, as in Pillow: "L", "P", "CMYK", "I;16", …
    orientation: int  # EXIF, 1–8; 1 if absent
    frames: int  # 1 for a still
    format: str  # "JPEG", "PNG", …

    @property
    def raw_size(self) -> tuple[int, int]:
        """Width and height before rotation, as in a mask that was drawn without EXIF."""
        return (self.height, self.width) if self.orientation >= 5 else (self.width, self.height)


def inspect_picture(data: bytes, limits: Limits = DEFAULT_LIMITS) -> PictureFacts:
    """Facts from the header, without decoding; raises RowFailed for a picture that the header shows to be unusable.

    Damage after the header, such as a missing end of a JPEG, is found only by `decode_picture`.
    """
    with reading(data, limits.max_pixels):
        image, num_frames = open_image(data, with_pixels=False)
        return _fit(_facts(image, num_frames), limits)


def decode_picture(data: bytes, limits: Limits = DEFAULT_LIMITS) -> tuple[UInt8[np.ndarray, "H W 3"], PictureFacts]:
    """The upright picture, and its facts as in `inspect_picture`; raises RowFailed."""
    with reading(data, limits.max_pixels):
        image, num_frames = open_image(data, with_pixels=True)
        facts = _fit(_facts(image, num_frames), limits)
        image.load()
        rgb = _rgb(image, data)
        # Pillow rotates only TIFFs on load.
        upright = rgb if facts.format == "TIFF" else apply_orientation(rgb, facts.orientation)
        if upright.size != (facts.width, facts.height):
            size = f"{upright.width}×{upright.height}"
            raise RowFailed(Reason.UNDECODABLE, f"{size} pixels, but {facts.width}×{facts.height} in the header")
        return np.array(upright), facts


def decode_indices(data: bytes, limits: Limits = DEFAULT_LIMITS) -> UInt16[np.ndarray, "H W"]:
    """The samples of a mask exactly as stored, before palette, scaling and rotation (a TIFF comes upright).

    Raises RowFailed, also for samples that cannot be indices: several channels, lossy compression, or a TIFF in which
    0 is white, where programs disagree about the index.
    """
    with reading(data, limits.max_pixels):
        image, num_frames = open_image(data, with_pixels=True)
        facts = _fit(_facts(image, num_frames), limits)
        full, is_white_zero = _grey_scale(image, data)
        if not (facts.mode in ("1", "L", "P") or facts.mode.startswith("I;16")):
            raise RowFailed(
                Reason.MASK_UNDECODABLE, f"masks must be indexed (palette or grey, such as PNG), this is {facts.mode}"
            )
        if facts.format not in _LOSSLESS or image.info.get("compression") in _LOSSY_IN_TIFF or is_white_zero:
            what = "a TIFF in which 0 is white" if is_white_zero else f"{facts.format} with lossy compression"
            raise RowFailed(Reason.MASK_UNDECODABLE, f"masks must be lossless, such as PNG; this is {what}")
        image.load()
        stored = np.array(image).astype(np.uint16)
        # Pillow stretches 2-bit and 4-bit grey to 0–255.
        return stored // (255 // full) if facts.mode == "L" and full < 255 else stored


def apply_orientation(image: Image.Image, orientation: int) -> Image.Image:
    """The image with an EXIF orientation applied."""
    method = _TRANSPOSE.get(orientation)
    return image if method is None else image.transpose(method)


def _facts(image: ImageFile.ImageFile, num_frames: int) -> PictureFacts:
    # For a TIFF, Pillow swaps the sides if the orientation tag says so, but not if XMP does.
    tags = getattr(image, "tag_v2", None)
    width, height = image.size if tags is None else (tags[_TIFF_WIDTH], tags[_TIFF_HEIGHT])
    orientation = orientation_of(image)
    if orientation >= 5:
        width, height = height, width
    return PictureFacts(width, height, image.mode, orientation, num_frames, image.format or "")


def _fit(facts: PictureFacts, limits: Limits) -> PictureFacts:
    """Returns facts within the limits. Aspect is checked before side: 20000×1 is a line, 1×1 is small."""
    size = f"{facts.width}×{facts.height} pixels"
    short, long = sorted((facts.width, facts.height))
    if short * long > limits.max_pixels:
        raise RowFailed(Reason.TOO_LARGE, f"{size}, at most {limits.max_pixels} in all are allowed")
    if long > limits.max_aspect * short:
        raise RowFailed(Reason.ASPECT, f"{size}, at most {limits.max_aspect:g}:1 is allowed")
    if short < limits.min_side:
        raise RowFailed(Reason.TOO_SMALL, f"{size}, at least {limits.min_side} on each side are needed")
    # PPM's mode I is 16 bits, stretched to the full range; elsewhere it is 32 bits or signed, with unknown range.
    if facts.mode == "F" or (facts.mode == "I" and facts.format != "PPM"):
        raise RowFailed(Reason.DTYPE, f"mode {facts.mode}, whose range of values is not known")
    return facts


def _rgb(image: Image.Image, data: bytes) -> Image.Image:
    full, is_white_zero = _grey_scale(image, data)
    key = image.info.get("transparency")  # a transparent colour, an index, or opacities of a palette
    if image.mode.startswith("I"):
        # Pillow's own conversion clips at 255, and a full ramp becomes white.
        to_eight_bits = ((np.arange(full + 1) * 255 + full // 2) // full).astype(np.uint8)
        if is_white_zero:
            to_eight_bits = to_eight_bits[::-1].copy()
        if isinstance(key, int) and key <= full:
            to_eight_bits[key] = BACKGROUND
        return Image.fromarray(to_eight_bits[np.asarray(image)]).convert("RGB")
    if image.format == "PNG" and image.mode == "L" and isinstance(key, int):
        image.info["transparency"] = key * 255 // full  # Pillow stretches the samples but not the key
    elif image.format == "PNG" and image.mode == "RGB" and isinstance(key, tuple) and full == 65535:
        image.info["transparency"] = tuple(channel >> 8 for channel in key)
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    rgba = image.convert("RGBA")
    canvas = Image.new("RGB", image.size, (BACKGROUND,) * 3)
    canvas.paste(rgba, mask=rgba)
    return canvas


def _grey_scale(image: Image.Image, data: bytes) -> tuple[int, bool]:
    """The largest sample that the file can hold, and whether 0 is white."""
    if image.format == "PNG":
        return (1 << data[_PNG_DEPTH_BYTE]) - 1, False
    tags = getattr(image, "tag_v2", None)
    if tags is not None:
        return (1 << tags.get(_TIFF_BITS, (1,))[0]) - 1, tags.get(_TIFF_PHOTOMETRIC, 0) == 0
    return (65535 if image.mode.startswith("I") else 255), False
