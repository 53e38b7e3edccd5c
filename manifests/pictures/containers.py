"""Reads the layout of picture files, without decoding pixels: where a file must end, and which PNG chunks matter.

Pillow does not report whether a failed file was cut off, nor what follows a PNG's pixels without decoding them.
"""

import struct

from ..errors import Reason, RowFailed

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_NO_PIXELS = bytes.fromhex("0000000049444154 35af061e")  # an empty IDAT chunk, which ends the header for Pillow
_PNG_END = bytes.fromhex("0000000049454e44 ae426082")
_PNG_COLOURS = {b"IHDR", b"PLTE", b"tRNS"}
# Texts that may hold the orientation: ImageMagick's hex dump of EXIF, plain EXIF, XMP.
_PNG_TEXTS = (b"Raw profile type exif\0", b"exif\0", b"XML:com.adobe.xmp\0")
_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_TIFF_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}  # bytes per value
_TIFF_OFFSETS, _TIFF_COUNTS = (273, 324), (279, 325)  # of strips, of tiles


def png_essentials(data: bytes, with_pixels: bool) -> tuple[bytes, int]:
    """The PNG as a still of its first frame with the orientation before the pixels, and its number of frames.

    Pillow decodes the pixels to find an orientation behind them, and rejects pictures with odd colour profiles or
    comments. With only these chunks it does neither.
    """
    colours, metadata, pixels = [], [], []
    frames, has_first_frame = 0, False
    chunks = _png_chunks(data)
    for kind, start, stop in chunks:
        if kind == b"IDAT":
            pixels.append((start, stop))
        elif kind == b"eXIf" or (kind in (b"tEXt", b"zTXt", b"iTXt") and data.startswith(_PNG_TEXTS, start + 8)):
            metadata.append(data[start:stop])
        elif not pixels and kind in _PNG_COLOURS:
            colours.append(data[start:stop])
        elif not pixels and kind == b"acTL" and stop - start >= 20:
            frames = int.from_bytes(data[start + 8 : start + 12])
        elif not pixels and kind == b"fcTL":
            has_first_frame = True
    if not pixels or chunks[0][0] != b"IHDR":
        raise RowFailed(Reason.UNDECODABLE, "a PNG without pixels, or whose header is not its first chunk")
    body = [data[start:stop] for start, stop in pixels] if with_pixels else [_PNG_NO_PIXELS]
    # If the still is not one of the animation's frames, it counts as one more.
    num_frames = max(1, frames + (0 if has_first_frame else 1)) if frames else 1
    return b"".join([_PNG_SIGNATURE, *colours, *metadata, *body, _PNG_END]), num_frames


def _png_chunks(data: bytes) -> list[tuple[bytes, int, int]]:
    """Kind, start and stop of every chunk up to the end mark, which must exist."""
    chunks: list[tuple[bytes, int, int]] = []
    start = len(_PNG_SIGNATURE)
    while start + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, start)
        if not kind.isalpha():
            raise RowFailed(Reason.UNDECODABLE, f"a PNG with an impossible chunk at byte {start}")
        stop = start + 12 + length
        if stop > len(data):
            break
        if kind == b"IEND":
            return chunks
        chunks.append((kind, start, stop))
        start = stop
    raise RowFailed(Reason.TRUNCATED, f"a PNG that ends inside a chunk, at byte {len(data)}")


def ends_early(data: bytes) -> bool:
    """Whether a file that failed to decode is shorter than its header says, or lacks its end mark."""
    try:
        if data[:2] == _JPEG_START:
            return not data.endswith(_JPEG_END)
        if data[:4] == b"RIFF":
            return len(data) < 8 + int.from_bytes(data[4:8], "little")
        if data[:4] in (b"II*\0", b"MM\0*"):
            return len(data) < _tiff_extent(data)
        if data[4:8] == b"ftyp":
            return len(data) < _boxes_extent(data) or b"mdat" not in data
    except struct.error:
        return True  # the header is cut off
    return False


def jpeg2000_ends_early(data: bytes) -> bool:
    """Whether a JPEG 2000 file was cut off; its decoder may return a grey picture without an error."""
    # Compressed data never holds FF followed by more than 8F (ISO 15444-1, annex B): an end mark is never data.
    return _JPEG_END not in data


def _boxes_extent(data: bytes) -> int:
    """Where the last box of an ISO container such as AVIF's ends."""
    start = 0
    while start < len(data):
        size = int.from_bytes(data[start : start + 4])
        if size == 1:
            size = int.from_bytes(data[start + 8 : start + 16])
        if size < 8:  # 0: to the end of the file
            return len(data)
        start += size
    return start


def _tiff_extent(data: bytes) -> int:
    """The end of the last data that a TIFF's first directory points to."""
    order = "<" if data[:2] == b"II" else ">"
    (start,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, start)
    extent: int = start + 2 + 12 * count + 4
    values: dict[int, tuple[int, ...]] = {}
    for entry in range(start + 2, start + 2 + 12 * count, 12):
        tag, kind, num = struct.unpack_from(order + "HHI", data, entry)
        size = num * _TIFF_SIZES.get(kind, 0)
        place = entry + 8 if size <= 4 else struct.unpack_from(order + "I", data, entry + 8)[0]
        extent = max(extent, place + size)
        if tag in _TIFF_OFFSETS + _TIFF_COUNTS and kind in (3, 4):
            if place + size > len(data):
                return extent
            values[tag] = struct.unpack_from(f"{order}{num}{'H' if kind == 3 else 'I'}", data, place)
    for offsets, counts in zip(_TIFF_OFFSETS, _TIFF_COUNTS, strict=True):
        ends = [at + size for at, size in zip(values.get(offsets, ()), values.get(counts, ()), strict=False)]
        extent = max([extent, *ends])
    return extent
