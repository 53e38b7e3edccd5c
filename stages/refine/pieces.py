"""Removes small pieces of a label map and fills small holes.

Letters: H W pixels, P pieces, N pairs of neighbouring pixels.

A piece is a set of connected pixels of one label. Foreground is connected over edges and corners (8 neighbours),
background over edges (4), so that a closed line of foreground separates inside from outside. Which label a small piece
gets is this project's own rule: the label that most of its neighbours have, because a speck of one class inside another
would become a hole if it became background. 255 keeps its pixels.
"""

import numpy as np
from jaxtyping import Int64, UInt8
from skimage.measure import label as numbered_pieces

from ...manifests.classes import BACKGROUND, IGNORE

_EDGES = ((0, 1), (1, 0))  # steps to half of the neighbours; the pairs are read both ways
_CORNERS = ((1, 1), (1, -1))


def tidy_labels(label_HW: UInt8[np.ndarray, "H W"], min_piece: int, fill_holes: int) -> UInt8[np.ndarray, "H W"]:
    """Removes pieces first, so that a speck in a hole does not keep the hole open."""
    if min_piece > 1:
        label_HW = remove_small_pieces(label_HW, min_piece)
    return fill_small_holes(label_HW, fill_holes) if fill_holes else label_HW


def remove_small_pieces(label_HW: UInt8[np.ndarray, "H W"], min_piece: int) -> UInt8[np.ndarray, "H W"]:
    """Gives each piece of a class with fewer than `min_piece` pixels the most common label of its 8-neighbours.

    Neighbours in other small pieces do not count. A tie goes to the lowest number, thus to background if it takes part;
    without any neighbour that counts, the piece becomes background.
    """
    piece_HW, labels_P = _number_pieces(label_HW, connectivity=2)
    is_class_P = (labels_P != BACKGROUND) & (labels_P != IGNORE)
    is_small_P = is_class_P & (np.bincount(piece_HW.ravel()) < min_piece)
    pieces_N, others_N = _border_pairs(piece_HW, _EDGES + _CORNERS)
    counts_N = is_small_P[pieces_N] & ~is_small_P[others_N]
    new_labels_P = np.where(is_small_P, np.uint8(BACKGROUND), labels_P)
    winners_P = _most_common(pieces_N[counts_N], labels_P[others_N[counts_N]])
    new_labels_P[winners_P[0]] = winners_P[1]
    return new_labels_P[piece_HW]


def fill_small_holes(label_HW: UInt8[np.ndarray, "H W"], fill_holes: int) -> UInt8[np.ndarray, "H W"]:
    """Gives each background piece of up to `fill_holes` pixels the class around it, if that is one class everywhere and
    the piece does not touch the picture's edge."""
    piece_HW, labels_P = _number_pieces(label_HW, connectivity=1)
    is_hole_P = (labels_P == BACKGROUND) & (np.bincount(piece_HW.ravel()) <= fill_holes)
    for edge in (piece_HW[0], piece_HW[-1], piece_HW[:, 0], piece_HW[:, -1]):
        is_hole_P[edge] = False
    pieces_N, others_N = _border_pairs(piece_HW, _EDGES)
    lowest_P, highest_P = np.full(len(labels_P), IGNORE, np.uint8), np.zeros(len(labels_P), np.uint8)
    np.minimum.at(lowest_P, pieces_N, labels_P[others_N])
    np.maximum.at(highest_P, pieces_N, labels_P[others_N])
    is_filled_P = is_hole_P & (lowest_P == highest_P) & (lowest_P != IGNORE)
    return np.where(is_filled_P, lowest_P, labels_P)[piece_HW]


def _number_pieces(
    label_HW: UInt8[np.ndarray, "H W"], connectivity: int
) -> tuple[Int64[np.ndarray, "H W"], UInt8[np.ndarray, " P"]]:
    """The piece of each pixel, counted from 0, and the label of each piece."""
    numbered = numbered_pieces(label_HW.astype(np.int16), background=-1, connectivity=connectivity)  # type: ignore[no-untyped-call]
    piece_HW = np.asarray(numbered, np.int64) - 1
    labels_P = np.empty(int(piece_HW.max()) + 1, np.uint8)
    labels_P[piece_HW] = label_HW
    return piece_HW, labels_P


def _border_pairs(
    piece_HW: Int64[np.ndarray, "H W"], steps: tuple[tuple[int, int], ...]
) -> tuple[Int64[np.ndarray, " N"], Int64[np.ndarray, " N"]]:
    """The pieces on both sides of every pair of neighbouring pixels that differ, each pair in both directions."""
    ones, others = zip(*(_differing(piece_HW, step) for step in steps), strict=True)
    return np.concatenate([*ones, *others]), np.concatenate([*others, *ones])


def _differing(
    piece_HW: Int64[np.ndarray, "H W"], step: tuple[int, int]
) -> tuple[Int64[np.ndarray, " N"], Int64[np.ndarray, " N"]]:
    rows, columns = step
    height, width = piece_HW.shape
    one = piece_HW[: height - rows, max(0, -columns) : width - max(0, columns)]
    other = piece_HW[rows:, max(0, columns) : width + min(0, columns)]
    differ = one != other
    return one[differ], other[differ]


def _most_common(
    pieces_N: Int64[np.ndarray, " N"], labels_N: UInt8[np.ndarray, " N"]
) -> tuple[Int64[np.ndarray, " P"], UInt8[np.ndarray, " P"]]:
    """Each piece that occurs, and its most common label; the lowest of equals."""
    pairs, counts = np.unique(pieces_N * 256 + labels_N, return_counts=True)
    pieces, labels = pairs // 256, pairs % 256
    order = np.lexsort((labels, -counts, pieces))
    winners, first = np.unique(pieces[order], return_index=True)
    return winners, labels[order][first].astype(np.uint8)
