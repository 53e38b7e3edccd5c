"""PASCAL VOC: pictures, masks with VOC's palette, one list per split, and CVAT's labelmap.txt.

CVAT identifies classes by colour, so undecided pixels (255) become a label `ignored` there. Some readers look for
JPEGImages/NAME.jpg only; pictures of other formats are counted as lost for them.
"""

from ..classes import BACKGROUND, IGNORE
from ..pictures.palette import VOC_PALETTE, encode_label_map
from .export import Export, one_line

_SEPARATOR = ":"  # of a line in labelmap.txt
_NO_JPEG = "pictures that are no .jpg, which some VOC readers look for alone"


def write(export: Export) -> None:
    lists: dict[str, list[str]] = {}
    for example in export.examples():
        export.lost[_NO_JPEG] += example.extension != "jpg"
        export.folder.write(f"JPEGImages/{example.picture_name}", example.picture)
        export.folder.write(f"SegmentationClass/{example.stem}.png", encode_label_map(example.label_HW))
        lists.setdefault(example.split, []).append(example.stem)
    for split, stems in lists.items():
        export.folder.write(f"ImageSets/Segmentation/{split}.txt", "".join(f"{stem}\n" for stem in stems).encode())
    export.folder.write("labelmap.txt", _label_map(export).encode())


def _label_map(export: Export) -> str:
    """labelmap.txt. Its reader datumaro splits lines at colons and skips lines that start with #."""
    reserved = {BACKGROUND: "background", IGNORE: "ignored"}
    names = export.class_names(_fit, reserved.values())
    lines = [_line(label, name) for label, name in sorted({**names, **reserved}.items())]
    return "# label:color_rgb:parts:actions\n" + "".join(lines)


def _fit(name: str) -> str:
    name = one_line(name).replace(_SEPARATOR, "_")
    return f"_{name}" if name.lstrip().startswith("#") else name


def _line(label: int, name: str) -> str:
    red, green, blue = VOC_PALETTE[3 * label : 3 * label + 3]
    return f"{name}:{red},{green},{blue}::\n"
