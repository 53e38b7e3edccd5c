"""The class tables of the two benchmarks whose masks hold class numbers, in the order those numbers are given out."""

from collections.abc import Sequence

from ..classes import ClassTable
from ..errors import InputError

# fmt: off
VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)

# In the order of their COCO ids, which leave gaps; the few-shot literature numbers them 1 to 80 without any.
COCO_CLASSES = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow",
    "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis",
    "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard",
    "tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich",
    "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed",
    "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven",
    "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier",
    "toothbrush",
)
# fmt: on


def number_classes(known: ClassTable, names: Sequence[str]) -> ClassTable:
    """A table in which the n-th name has index n, as its masks' pixels say; source ids are "1", "2", …"""
    return check_order(known.with_classes((str(number), name) for number, name in enumerate(names, 1)), names)


def check_order(table: ClassTable, names: Sequence[str]) -> ClassTable:
    """The table, if the n-th name has index n in it."""
    for number, name in enumerate(names, 1):
        if table.name_of(number) != name:
            raise InputError(
                f"masks of this dataset say {number} for {name}, which is {table.name_of(number)} in the artifact "
                f"being updated; index this dataset into an artifact of its own"
            )
    return table
