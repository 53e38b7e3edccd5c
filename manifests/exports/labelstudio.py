"""Label Studio: pictures, tasks with brush predictions, and a labelling config of the same classes.

Undecided pixels get a brush of their own, which shows annotators where to look. Tasks name pictures as local files of
Label Studio: set LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT to the folder of this export.
"""

import json
from collections.abc import Iterator, Mapping
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from ..classes import IGNORE
from ..files.sealed import Json
from ..pictures.palette import VOC_PALETTE
from .brush import encode_brush
from .export import Export, ExportPicture, one_line
from .parts import Parts

_FILE_BYTES = 100 * 10**6  # below the default upload limit of a server
_UNDECIDED = "undecided"


def write(export: Export) -> None:
    names = {**export.class_names(one_line, reserved=[_UNDECIDED]), IGNORE: _UNDECIDED}
    version = f"maskmill {export.labels.artifact.plan.fingerprint[:12]}"
    tasks = Parts(export.folder, "tasks-{number:05}.json", _FILE_BYTES, begin=b"[\n", between=b",\n", end=b"\n]\n")
    with tasks:
        for example in export.examples():
            export.folder.write(f"images/{example.picture_name}", example.picture)
            tasks.write("", json.dumps(_task(example, names, version), ensure_ascii=False).encode())
    export.folder.write("config.xml", _config(names).encode())


def _task(example: ExportPicture, names: Mapping[int, str], version: str) -> dict[str, Json]:
    data = {
        "image": f"/data/local-files/?d={quote(f'images/{example.picture_name}')}",
        "id": example.id,
        "split": example.split,
    }
    return {"data": data, "predictions": [{"model_version": version, "result": list(_brushes(example, names))}]}


def _brushes(example: ExportPicture, names: Mapping[int, str]) -> Iterator[dict[str, Json]]:
    for label, name in names.items():
        inside_HW = example.label_HW == label
        if inside_HW.any():
            yield {
                "id": f"{example.number}-{label}",
                "type": "brushlabels",
                "from_name": "mask",
                "to_name": "image",
                "original_width": example.width,
                "original_height": example.height,
                "image_rotation": 0,
                "value": {"format": "rle", "rle": encode_brush(inside_HW), "brushlabels": [name]},
            }


def _config(names: Mapping[int, str]) -> str:
    labels = "".join(
        f'    <Label value={quoteattr(name)} background="#{VOC_PALETTE[3 * label : 3 * label + 3].hex()}"/>\n'
        for label, name in names.items()
    )
    return (
        '<View>\n  <Image name="image" value="$image" zoom="true"/>\n'
        f'  <BrushLabels name="mask" toName="image">\n{labels}  </BrushLabels>\n</View>\n'
    )
