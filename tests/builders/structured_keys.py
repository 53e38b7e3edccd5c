"""Keys that no backbone has made but a picture has shaped: colour, its spread, edges and place of each patch.

Objects stand out in their graph as in that of a trained backbone's keys, which a random one's do not: those agree so
well with one another that every edge is strong.
"""

import numpy as np
from jaxtyping import Float16, UInt8
from PIL import Image
from scipy import ndimage  # type: ignore[import-untyped]
from skimage.color import rgb2lab

PATCH, WIDTH = 8, 384


def structured_keys(picture: UInt8[np.ndarray, "H W 3"], grid: tuple[int, int]) -> Float16[np.ndarray, "T D"]:
    rows, columns = grid
    fitted = Image.fromarray(picture).resize((columns * PATCH, rows * PATCH), Image.Resampling.LANCZOS)
    lab_IJ3 = rgb2lab(np.asarray(fitted)).astype(np.float32)
    edges = [
        width * np.abs(ndimage.gaussian_filter1d(lab_IJ3[..., 0], width, axis=axis, order=1))
        for width in (1, 2, 4)
        for axis in (0, 1)
    ]
    around_IJ3 = ndimage.gaussian_filter(lab_IJ3, (PATCH, PATCH, 0))
    seen = np.concatenate([lab_IJ3, np.stack(edges, axis=-1), around_IJ3], axis=-1)
    patches = seen.reshape(rows, PATCH, columns, PATCH, -1)
    said_TF = np.concatenate([patches.mean(axis=(1, 3)), patches.std(axis=(1, 3))], axis=-1).reshape(rows * columns, -1)
    said_TF = (said_TF - said_TF.mean(axis=0)) / (said_TF.std(axis=0) + 1e-6)
    places = np.meshgrid(np.linspace(-2, 2, rows), np.linspace(-2, 2, columns), indexing="ij")
    said_TF = np.concatenate([said_TF, np.stack(places, axis=-1).reshape(rows * columns, 2)], axis=1)
    turned_FD = np.random.default_rng(0).normal(size=(said_TF.shape[1], WIDTH))
    return (said_TF @ turned_FD).astype(np.float16)
