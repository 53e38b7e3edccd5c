"""Label Studio's brush encoding: packed bits with runs of 8-bit values of the four channels of RGBA.

Head: 32 bits for the number of values, 5 for the bits per value minus 1, and four times 4 for the possible bits of a
run length, minus 1. Then per run: 1 bit that marks a run of one value, 2 that choose one of the four length sizes, the
length minus 1, the value. Source: brush.py of label-studio-sdk and rle-pack of github.com/thi-ng/umbrella.

Letters: H W pixels, R runs.
"""

import numpy as np
from jaxtyping import Bool, Int64, UInt8

_LENGTH_BITS = np.array([3, 4, 8, 16])
_LONGEST = 2**16
_VALUE_BITS = 8
_CHANNELS = 4
_HEAD_BITS = 3  # the run bit and the choice of a length size
_INSIDE = 255


def encode_brush(inside_HW: Bool[np.ndarray, "H W"]) -> list[int]:
    """The bytes of a mask; all four channels are 255 inside and 0 outside."""
    lengths_R, is_inside_R = _runs(inside_HW.ravel())
    return _pack_runs(inside_HW.size * _CHANNELS, lengths_R, is_inside_R).tolist()


def _runs(inside: Bool[np.ndarray, " N"]) -> tuple[Int64[np.ndarray, " R"], Bool[np.ndarray, " R"]]:
    """Length of each run, split at the longest that can be written, and whether it is inside."""
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
    # Each run as one number of at most 3 + 16 + 8 bits.
    words_R = ((4 + kind_R) << bits_R | (lengths_R - 1)) << _VALUE_BITS | np.where(is_inside_R, _INSIDE, 0)
    starts_R = np.cumsum(width_R) - width_R
    index = np.arange(int(width_R.sum())) - np.repeat(starts_R, width_R)  # index of each bit in its run
    bits = (np.repeat(words_R, width_R) >> (np.repeat(width_R, width_R) - 1 - index)) & 1
    head = f"{num_values:032b}{_VALUE_BITS - 1:05b}" + "".join(f"{size - 1:04b}" for size in _LENGTH_BITS)
    return np.packbits(np.concatenate([np.array([int(bit) for bit in head]), bits]).astype(np.uint8))
