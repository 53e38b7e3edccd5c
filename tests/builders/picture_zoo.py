"""Pictures as people have them: good, odd, broken and hostile, each with what must become of it.

One file per row of the table that the decoder promises to keep, and some more; made on the spot, the same every time.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from maskmill.manifests.errors import Reason

WIDTH, HEIGHT = 160, 120


@dataclass(frozen=True, slots=True, kw_only=True)
class ZooPicture:
    """A file, and what the header alone (`header`) and a full decoding (`reason`) must make of it: None is fine."""

    name: str  # as it should be called on disk
    data: bytes
    reason: Reason | None = None
    header: Reason | None = None
    size: tuple[int, int] = (WIDTH, HEIGHT)  # upright
    mode: str = "RGB"
    orientation: int = 1
    frames: int = 1
    format: str = "JPEG"
    mean: float | None = None  # of the decoded picture, over all channels


@cache
def zoo() -> dict[str, ZooPicture]:
    """Every picture under its file name."""
    pictures = [*_fine(), *_odd_values(), *_several_frames(), *_turned(), *_broken(), *_out_of_limits()]
    named = {picture.name: picture for picture in pictures}
    assert len(named) == len(pictures)
    return named


def scene() -> np.ndarray:
    """A picture of which no turned or mirrored copy equals another; a ramp with a little texture."""
    row, column = np.mgrid[0:HEIGHT, 0:WIDTH]
    texture = (row * 7 + column * 13) % 11
    channels = (column + 20, 2 * row, row + column // 2 + 30)
    return np.stack([channel + texture for channel in channels], axis=-1).clip(0, 255).astype(np.uint8)


def encoded(pixels: np.ndarray | Image.Image, kind: str, **options: Any) -> bytes:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    stream = BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def exif_of(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def raw_png(width: int, height: int, depth: int, colour: int, rows: bytes, *before: bytes) -> bytes:
    """A PNG of samples that Pillow cannot write; `rows` are packed, each behind its filter byte."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = [png_chunk(b"IHDR", header), *before, png_chunk(b"IDAT", zlib.compress(rows, 9)), png_chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


def with_late_chunk(png: bytes, chunk: bytes) -> bytes:
    """The PNG with a chunk behind its pixels, where Pillow finds it only by decoding them."""
    return png[:-12] + chunk + png[-12:]


def blank_png(width: int, height: int) -> bytes:
    """One bit per pixel, all black: a few kilobytes however large it is."""
    return raw_png(width, height, 1, 0, bytes((1 + (width + 7) // 8) * height))


def grey_ramp() -> np.ndarray:
    """Every value of 16 bits once."""
    return np.arange(65536, dtype=np.uint16).reshape(256, 256)


def _fine() -> Iterator[ZooPicture]:
    mean = float(scene().mean())
    jpeg, png = encoded(scene(), "JPEG", quality=95), encoded(scene(), "PNG")
    yield ZooPicture(name="plain.jpg", data=jpeg, mean=mean)
    yield ZooPicture(name="progressive.jpg", data=encoded(scene(), "JPEG", quality=95, progressive=True), mean=mean)
    yield ZooPicture(name="plain.png", data=png, format="PNG", mean=mean)
    for suffix, kind in [("webp", "WEBP"), ("tif", "TIFF"), ("bmp", "BMP"), ("ppm", "PPM"), ("jp2", "JPEG2000")]:
        yield ZooPicture(name=f"plain.{suffix}", data=encoded(scene(), kind), format=kind, mean=mean)
    yield ZooPicture(name="plain.avif", data=encoded(scene(), "AVIF", quality=95), format="AVIF", mean=mean)
    yield ZooPicture(name="png called.jpg", data=png, format="PNG", mean=mean)
    yield ZooPicture(name="with some spaces.jpg", data=jpeg, mean=mean)
    yield ZooPicture(name="Größe-写真.jpg", data=jpeg, mean=mean)
    flipped_jpeg, flipped_png = bytearray(jpeg), bytearray(png)
    flipped_jpeg[len(jpeg) // 2] ^= 1
    flipped_png[-14] ^= 1  # in the checksum of the last pixels, which Pillow does not compare
    yield ZooPicture(name="one bit flipped.jpg", data=bytes(flipped_jpeg))
    yield ZooPicture(name="one bit flipped.png", data=bytes(flipped_png), format="PNG", mean=mean)


def _odd_values() -> Iterator[ZooPicture]:
    mean = float(scene().mean())
    image = Image.fromarray(scene())
    cmyk = encoded(image.convert("CMYK"), "JPEG", quality=95)
    yield ZooPicture(name="cmyk.jpg", data=cmyk, mode="CMYK", mean=mean)
    square, ramp = (256, 256), grey_ramp()
    for suffix, kind in [("png", "PNG"), ("tif", "TIFF")]:
        data = encoded(ramp, kind)
        yield ZooPicture(name=f"grey16.{suffix}", data=data, format=kind, size=square, mode="I;16", mean=127.5)
    deep = np.repeat(ramp.astype(">u2")[..., None], 3, axis=2)
    rows = b"".join(b"\0" + row.tobytes() for row in deep)
    yield ZooPicture(name="rgb16.png", data=raw_png(256, 256, 16, 2, rows), format="PNG", size=square, mean=127.5)
    for name, numbers in [("float.tif", scene()[..., 0] / np.float32(255)), ("int32.tif", scene()[..., 0] * 10)]:
        dtype, mode = (np.float32, "F") if name == "float.tif" else (np.int32, "I")
        data = encoded(numbers.astype(dtype), "TIFF")
        yield ZooPicture(name=name, data=data, format="TIFF", mode=mode, header=Reason.DTYPE, reason=Reason.DTYPE)
    clear = np.dstack([scene(), np.zeros((HEIGHT, WIDTH), np.uint8)])
    yield ZooPicture(name="transparent.png", data=encoded(clear, "PNG"), format="PNG", mode="RGBA", mean=255.0)
    half = Image.fromarray(np.full((HEIGHT, WIDTH), 100, np.uint8)).convert("LA")
    half.putalpha(51)  # a fifth
    yield ZooPicture(
        name="half transparent.png", data=encoded(half, "PNG"), format="PNG", mode="LA", mean=0.2 * 100 + 0.8 * 255
    )
    quantized = image.quantize(64)
    palette_mean = float(np.asarray(quantized.convert("RGB")).mean())
    yield ZooPicture(name="palette.png", data=encoded(quantized, "PNG"), format="PNG", mode="P", mean=palette_mean)
    hidden = encoded(quantized, "PNG", transparency=bytes(256))
    yield ZooPicture(name="palette transparent.png", data=hidden, format="PNG", mode="P", mean=255.0)
    bits = Image.fromarray(scene()[..., 0] > 128)
    bits_mean = 255.0 * float((scene()[..., 0] > 128).mean())
    yield ZooPicture(name="one bit.png", data=encoded(bits, "PNG"), format="PNG", mode="1", mean=bits_mean)
    grey = scene()[..., 1]
    yield ZooPicture(name="grey.jpg", data=encoded(grey, "JPEG", quality=95), mode="L", mean=float(grey.mean()))


def _several_frames() -> Iterator[ZooPicture]:
    frames = [Image.new("RGB", (WIDTH, HEIGHT), (value,) * 3) for value in (30, 120, 210)]
    options: dict[str, Any] = {"save_all": True, "append_images": frames[1:]}
    for suffix, kind in [("gif", "GIF"), ("png", "PNG"), ("tif", "TIFF")]:
        data = encoded(frames[0], kind, **options)
        mode = "P" if kind == "GIF" else "RGB"
        yield ZooPicture(name=f"frames.{suffix}", data=data, format=kind, mode=mode, frames=3, mean=30.0)
    webp = encoded(frames[0], "WEBP", lossless=True, **options)
    yield ZooPicture(name="frames.webp", data=webp, format="WEBP", frames=3, mean=30.0)
    previews = encoded(frames[0], "MPO", save_all=True, append_images=frames[1:])
    yield ZooPicture(name="previews.jpg", data=previews, mean=30.0)


def _turned() -> Iterator[ZooPicture]:
    mean, size = float(scene().mean()), (HEIGHT, WIDTH)
    jpeg = encoded(scene(), "JPEG", quality=95, exif=exif_of(6))
    yield ZooPicture(name="orientation 6.jpg", data=jpeg, size=size, orientation=6, mean=mean)
    late = with_late_chunk(encoded(scene(), "PNG"), png_chunk(b"eXIf", exif_of(6).removeprefix(b"Exif\0\0")))
    yield ZooPicture(name="late exif.png", data=late, format="PNG", size=size, orientation=6, mean=mean)


def _broken() -> Iterator[ZooPicture]:
    jpeg, png = encoded(scene(), "JPEG", quality=95), encoded(scene(), "PNG")
    web_page = b"<!DOCTYPE html><html><title>404</title>" + b"<p>Not found</p>" * 50
    for name, data in [("empty.jpg", b""), ("web page.jpg", web_page)]:
        yield ZooPicture(name=name, data=data, reason=Reason.UNDECODABLE, header=Reason.UNDECODABLE)
    for name, stop in [("half", len(jpeg) // 2), ("99 percent", len(jpeg) * 99 // 100), ("all but 2 bytes", -2)]:
        yield ZooPicture(name=f"{name}.jpg", data=jpeg[:stop], reason=Reason.TRUNCATED)
    for name, stop in [("half", len(png) // 2), ("all but 2 bytes", -2)]:
        cut = Reason.TRUNCATED  # visible without decoding: the chunks do not add up
        yield ZooPicture(name=f"{name}.png", data=png[:stop], format="PNG", reason=cut, header=cut)


def _out_of_limits() -> Iterator[ZooPicture]:
    sizes = {
        (1, 1): Reason.TOO_SMALL,
        (20_000, 1): Reason.ASPECT,
        (10_000, 9_000): Reason.TOO_LARGE,
        (14_000, 14_000): Reason.TOO_LARGE,
    }
    for (width, height), reason in sizes.items():
        data, name = blank_png(width, height), f"{width}x{height}.png"
        yield ZooPicture(
            name=name, data=data, format="PNG", mode="1", size=(width, height), reason=reason, header=reason
        )
