"""Baselines that see no picture and paint the image's label over the whole picture or over an ellipse.

Letters: H W pixels, G cells along each side of a picture in normalised coordinates, N images, M ellipses tried,
U groups of images.

The rules are this project's own. The ellipse is fitted with leave-one-class-out: an image painted with class c gets the
ellipse that scores best on images without c. If every image has c, images are split in two halves by the hash of their
id, and each half gets the other's ellipse. If that half is empty, the ellipse is the whole picture.
"""

import hashlib
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, UInt8

from ...manifests.classes import BACKGROUND, IGNORE

GRID = 64  # cells along a side
ImagePositions = tuple[int, ...]
_CENTRES = tuple(0.3 + 0.1 * step for step in range(5))
_RADII = tuple(0.1 + 0.05 * step for step in range(14))  # up to 0.75, which covers a picture from its centre


@dataclass(frozen=True, slots=True)
class Ellipse:
    """In shares of the picture's height (row) and width (column)."""

    row: float
    column: float
    row_radius: float
    column_radius: float


WHOLE = Ellipse(0.5, 0.5, 0.75, 0.75)  # every pixel: the all-foreground baseline


def labels_to_paint(labels: Sequence[Collection[int]]) -> list[int]:
    """The label each image is painted with: its most common one over all images, the lowest on a tie.

    An image without labels stays background. An image's other labels are missed by every baseline; class-agnostic
    scores (`as_foreground`) avoid that.
    """
    common = Counter(label for own in labels for label in set(own))
    return [max(own, key=lambda label: (common[label], -label)) if own else BACKGROUND for own in labels]


def paint_ellipse(size: tuple[int, int], label: int, ellipse: Ellipse = WHOLE) -> UInt8[np.ndarray, "H W"]:
    """A label map of (height, width) pixels. A pixel belongs to the ellipse if its centre does."""
    return np.where(_inside(size, ellipse), label, BACKGROUND).astype(np.uint8)


def cell_counts(truth_HW: UInt8[np.ndarray, "H W"]) -> Float32[np.ndarray, "2 G G"]:
    """Foreground pixels, and pixels that are not 255, in each cell of the picture."""
    row_cells, column_cells = ((_centres_of(side) * GRID).astype(np.intp) for side in truth_HW.shape)
    cell_HW = row_cells[:, None] * GRID + column_cells[None, :]
    counted = [(truth_HW != BACKGROUND) & (truth_HW != IGNORE), truth_HW != IGNORE]
    cells = [np.bincount(cell_HW[mask_HW], minlength=GRID * GRID).reshape(GRID, GRID) for mask_HW in counted]
    return np.stack(cells).astype(np.float32)


def fit_ellipses(
    ids: Sequence[str], labels: Sequence[Collection[int]], cells: Float32[np.ndarray, "N 2 G G"]
) -> list[Ellipse]:
    """The ellipse of each image, fitted on images without the class that it is painted with.

    `labels` holds all classes of each image's truth, `cells` its `cell_counts`. The best ellipse has the highest IoU
    with foreground, averaged over painted labels, so that classes have equal weight.
    """
    painted_N = np.array(labels_to_paint(labels), np.int64)
    folds = list(_folds(ids, labels, painted_N))
    best = _best_ellipses([_group_by_label(fitted_N, painted_N) for _, fitted_N in folds], cells)
    ellipses = [WHOLE] * len(ids)
    for (judged_N, _), ellipse in zip(folds, best, strict=True):
        for row in np.flatnonzero(judged_N):
            ellipses[row] = ellipse
    return ellipses


def _folds(
    ids: Sequence[str], labels: Sequence[Collection[int]], painted_N: Int64[np.ndarray, " N"]
) -> Iterator[tuple[Bool[np.ndarray, " N"], Bool[np.ndarray, " N"]]]:
    """The images that share one ellipse, and the images it is fitted on."""
    half_N = np.array([hashlib.sha256(image_id.encode()).digest()[0] % 2 for image_id in ids], np.int64)
    for label in np.unique(painted_N[painted_N != BACKGROUND]):
        judged_N = painted_N == label
        others_N = np.array([bool(own) and label not in own for own in labels])
        if others_N.any():
            yield judged_N, others_N
        else:
            labelled_N = painted_N != BACKGROUND
            yield from ((judged_N & (half_N == half), labelled_N & (half_N != half)) for half in (0, 1))


def _group_by_label(used_N: Bool[np.ndarray, " N"], painted_N: Int64[np.ndarray, " N"]) -> list[ImagePositions]:
    return [tuple(np.flatnonzero(used_N & (painted_N == label)).tolist()) for label in np.unique(painted_N[used_N])]


def _best_ellipses(fits: Sequence[Sequence[ImagePositions]], cells: Float32[np.ndarray, "N 2 G G"]) -> list[Ellipse]:
    """Per fit, the first ellipse of highest mean IoU over its groups of images. Each distinct group is summed once."""
    flat = cells.reshape(len(cells), 2, GRID * GRID)
    sums = {rows: flat[list(rows)].sum(axis=0, dtype=np.float64) for fit in fits for rows in fit}
    position = {rows: at for at, rows in enumerate(rows for rows, sum_ in sums.items() if sum_[0].any())}
    if not position:
        return [WHOLE] * len(fits)
    iou = _iou_of_candidates(np.stack([sums[rows] for rows in position]))
    columns = [[position[rows] for rows in fit if rows in position] for fit in fits]
    candidates = [ellipse for ellipses in _candidates() for ellipse in ellipses]
    return [candidates[int(iou[:, own].mean(axis=1).argmax())] if own else WHOLE for own in columns]


def _iou_of_candidates(sums_U2G: Float64[np.ndarray, "U 2 cells"]) -> Float64[np.ndarray, "M U"]:
    """Exact, since sums are integers below 2⁵³; so the best ellipse does not depend on the number of threads."""
    foreground_U = sums_U2G[:, 0].sum(axis=1)
    ious = []
    for ellipses in _candidates():
        masks = np.stack([_inside((GRID, GRID), ellipse).ravel() for ellipse in ellipses]).astype(np.float64)
        both = masks @ sums_U2G[:, 0].T
        ious.append(both / (masks @ sums_U2G[:, 1].T + foreground_U - both))
    return np.concatenate(ious)


def _candidates() -> Iterator[list[Ellipse]]:
    """The candidates, one centre at a time."""
    for row, column in product(_CENTRES, _CENTRES):
        yield [Ellipse(row, column, *radii) for radii in product(_RADII, _RADII)]


def _inside(size: tuple[int, int], ellipse: Ellipse) -> Bool[np.ndarray, "H W"]:
    rows = (_centres_of(size[0]) - ellipse.row) / ellipse.row_radius
    columns = (_centres_of(size[1]) - ellipse.column) / ellipse.column_radius
    return np.asarray(rows[:, None] ** 2 + columns[None, :] ** 2 <= 1)


def _centres_of(num_pixels: int) -> Float64[np.ndarray, " pixels"]:
    return (np.arange(num_pixels) + 0.5) / num_pixels
