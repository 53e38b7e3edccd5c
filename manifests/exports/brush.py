"""Label Studio's run lengths of a brush: bytes that hold runs of 8-bit values, those of the four channels of RGBA.

First 32 bits of how many values there are, 5 of the bits of a value less one, and four times 4 bits of how many bits a
run's length may have, less one; then runs: a bit that says that one value is repeated, 2 that choose among those four,
the length less one, the value. From brush.py of label-studio-sdk, and rle-pack of github.com/thi-ng/umbrella, whose
format it is.

Letters: H W pixels, R runs, S bits of a run's length.
"""

import numpy as np
from jaxtyping import Bool, Int64, UInt8

_LENGTH_BITS = np.array([3, 4, 8, 16])
_LONGEST = 2**16
_VALUE_BITS = 8
_CHANNELS = 4
_HEAD_BITS = 3  # that it is a run, and which of the four lengths it has
_INSIDE = 255


def encode_brush(inside_HW: Bool[np.ndarray, "H W"]) -> list[int]:
    """The bytes of a mask, all four channels 255 inside and 0 outside."""
    lengths_R, is_inside_R = _runs(inside_HW.ravel())
    return _pack_runs(inside_HW.size * _CHANNELS, lengths_R, is_inside_R).tolist()


def _runs(inside: Bool[np.ndarray, " N"]) -> tuple[Int64[np.ndarray, " R"], Bool[np.ndarray, " R"]]:
    """How many values each run has, at most the longest that can be written, and whether it is inside."""
    ends = np.flatnonzero(np.append(inside[1:] != inside[:-1], True))
    lengths = np.diff(ends, prepend=-1) * _CHANNELS
    pieces = -(-lengths // _LONGEST)
    lengths_R = np.full(int(pieces.sum()), _LONGEST, np.int64)
    lengths_R[np.cumsum(pieces) - 1] = lengths - (pieces - 1) * _LONGEST
    return lengths_R, np.repeat(inside[ends], pieces)


def _pack_runs(
    num_values: int, lengths_R: Int64[np.ndarray, " R"], is_inside_R: Bool[np.ndarray, " R"]
) -> UInt8[np.ndarray, " bytes"]:
    kind_R = np.searchsorted(2**_LENGTH_BITS, lengths_R)
    bits_R = _LENGTH_BITS[kind_R]
    width_R = _HEAD_BITS + bits_R + _VALUE_BITS
    # A run as a number: at most 3 + 16 + 8 bits.
    words_R = ((4 + kind_R) << bits_R | (lengths_R - 1)) << _VALUE_BITS | np.where(is_inside_R, _INSIDE, 0)
    starts_R = np.cumsum(width_R) - width_R
    place = np.arange(int(width_R.sum())) - np.repeat(starts_R, width_R)  # of a bit in its run, from its first
    bits = (np.repeat(words_R, width_R) >> (np.repeat(width_R, width_R) - 1 - place)) & 1
    head = f"{num_values:032b}{_VALUE_BITS - 1:05b}" + "".join(f"{each - 1:04b}" for each in _LENGTH_BITS)
    return np.packbits(np.concatenate([np.array([int(bit) for bit in head]), bits]).astype(np.uint8))
