"""Class names of the two benchmarks whose masks hold class numbers, in the order of the numbers."""

from collections.abc import Sequence

from ..classes import ClassTable
from ..errors import InputError

# fmt: off
VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)

# In the order of their COCO ids, which have gaps; the few-shot literature numbers them 1 to 80.
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
    """The table in which the n-th name has index n, as in the masks; source ids are "1", "2", …"""
    return check_order(known.with_classes((str(number), name) for number, name in enumerate(names, 1)), names)


def check_order(table: ClassTable, names: Sequence[str]) -> ClassTable:
    """Returns the table if its n-th name has index n; raises InputError otherwise."""
    for number, name in enumerate(names, 1):
        if table.name_of(number) != name:
            raise InputError(
                f"masks of this dataset use {number} for {name}, which is {table.name_of(number)} in the artifact "
                "being updated; index this dataset into a new artifact"
            )
    return table
