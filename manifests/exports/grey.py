"""Label maps as grey PNGs, for readers that would turn a palette into its colours and lose the class.

Letters: H W pixels.
"""

import io

import numpy as np
from jaxtyping import UInt8
from PIL import Image


def encode_grey(label_HW: UInt8[np.ndarray, "H W"]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(label_HW).save(stream, "PNG")
    return stream.getvalue()
