"""Writes croissant.json, which describes the dataset to readers that do not know this package.

Croissant 1.1 with its RAI vocabulary 1.0, both of MLCommons, and provenance in PROV-O: docs/croissant-spec-1.1.md and
docs/croissant-rai-spec.md of github.com/mlcommons/croissant. An entity is named by the sha256 of its artifact.json.
The file has no date, so equal datasets give equal bytes.
"""

import json
from collections.abc import Mapping

from ...manifests.artifact.facts import DatasetFacts
from ...manifests.artifact.plan import Plan
from ...manifests.files.digests import FileDigest
from ...manifests.files.sealed import Json
from ...manifests.published.schema import FRAME, OBJECT, class_names

NAME = "croissant.json"
FILES, IMAGES, CLASSES = "parquet-files", "images", "classes"  # ids in the file
_PARQUET = "application/x-parquet"
_FILE_SET = {"@type": "cr:FileSet", "@id": FILES, "encodingFormat": _PARQUET, "includes": f"{FRAME}/*/*.parquet"}
_TYPES = {"string": "sc:Text", "bool": "sc:Boolean", "int64": "cr:Int64", "double": "cr:Float64"}
_DESCRIBED = {
    "id": "The picture's path without its extension; rows of different files are joined by it.",
    "status": "ok, or failed: then there is no mask, and reason says why.",
    "reason": "Why the row failed.",
    "kept": "Whether the quality rule kept the row. What it dropped is still there.",
    "dropped": "What the quality rule refused.",
    "uri": "Where the picture lies, from the folder of the pictures; or a URL.",
    "sha256": "Of the picture's bytes.",
    "image": "The picture's own file.",
    "mask": "A palette PNG of the picture's size, upright. Pixels are 0 for background, 255 for undecided, or a class.",
    "labels": "Image-level labels.",
    "split": "The split that the picture belongs to.",
    "height": "Of picture and mask, upright.",
    "width": "Of picture and mask, upright.",
    "objects": "Each class of the mask: where its pixels come from (gt, pseudo or enhanced), its score, and measures "
    "of its quality that use no ground truth.",
}
_PROTOCOL = (
    "No person drew the pseudo-masks. The tokens of a vision transformer gave soft maps of each picture, which were "
    "cut into a label map and, where a refiner is named, refined on the picture. Only classes whose source is gt come "
    "from masks that were given and named as ground truth; those that are enhanced come from soft maps that a network "
    "fitted on a few such masks has changed."
)
_LIMITATIONS = (
    "Pseudo-masks have errors. The measures of quality, under `objects`, tell what looks bad and not what is right."
)
_PREFIXES = {
    "cr": "http://mlcommons.org/croissant/",
    "dct": "http://purl.org/dc/terms/",
    "prov": "http://www.w3.org/ns/prov#",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "sc": "https://schema.org/",
}
_CROISSANT_TERMS = (
    *("arrayShape", "citeAs", "column", "containedIn", "equivalentProperty", "extract", "field"),
    *("fileProperty", "fileObject", "fileSet", "format", "includes", "isArray", "isLiveDataset", "jsonPath"),
    *("key", "md5", "parentField", "path", "recordSet", "references", "regex", "repeated", "replace"),
    *("samplingRate", "separator", "source", "subField", "transform"),
)
_CONTEXT: Mapping[str, Json] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    **_PREFIXES,
    **{term: f"cr:{term}" for term in _CROISSANT_TERMS},
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "description": {"@container": "@language"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "name": {"@container": "@language"},
}


def croissant_json(plan: Plan, counts: Mapping[str, Json], files: Mapping[str, FileDigest]) -> dict[str, bytes]:
    """The description of a finished dataset."""
    facts = DatasetFacts.from_json(plan.facts)
    described: dict[str, Json] = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": ["http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0"],
        "name": facts.title,
        "description": _description(facts, counts),
        "identifier": f"maskmill:{plan.fingerprint}",
        "keywords": ["semantic segmentation", "pseudo-labels"],
        **({"license": licences} if (licences := _licences(facts)) else {}),
        "prov:wasDerivedFrom": [_entity(step) for step in facts.provenance],
        "prov:wasGeneratedBy": _activity(plan.stage, plan.code_version, plan.config),
        "rai:dataAnnotationProtocol": _PROTOCOL,
        "rai:dataLimitations": _LIMITATIONS,
        "rai:machineAnnotationTools": _tools(facts),
        "distribution": [*(_file(name, files[name]) for name in sorted(files)), _FILE_SET],
        "recordSet": [_images(plan, facts), _classes(facts)],
    }
    return {NAME: json.dumps(described, ensure_ascii=False, indent=1).encode() + b"\n"}


def _description(facts: DatasetFacts, counts: Mapping[str, Json]) -> str:
    names = class_names(facts.classes)
    listed = ", ".join(f"{index} {name}" for index, name in names.items())
    failed = int(counts["rows"]) - int(counts["ok"])
    without = f", {failed} more have none and say why" if failed else ""
    return (
        f"Segmentation masks of {counts['ok']} pictures{without}. {len(names)} classes: {listed}. Made with "
        f"{facts.backbone}, weights {facts.weights.source}."
    )


def _licences(facts: DatasetFacts) -> list[Json]:
    """The licences of the dataset, if given, and of the weights, whose terms may extend to the masks."""
    weights = facts.weights
    carried = {
        "@type": "sc:CreativeWork",
        "name": weights.licence,
        "description": f"The licence of the weights that the masks were made with, {weights.source}.",
    }
    return [*filter(None, [facts.licence]), *([carried] if weights.licence != "none" else [])]


def _tools(facts: DatasetFacts) -> list[str]:
    known = (step for step in facts.provenance if "stage" in step)
    stages = [f"maskmill {step['stage']}, code version {step['code_version']}" for step in known]
    return [f"{facts.backbone}, weights {facts.weights.source} (sha256 {facts.weights.sha256})", *stages]


def _entity(step: Mapping[str, Json]) -> dict[str, Json]:
    """An artifact that the dataset was made from; only its digest if the artifact was missing."""
    entity: dict[str, Json] = {"@type": "prov:Entity", "@id": _urn(step["digest"])}
    if "stage" not in step:
        return entity
    return entity | {
        "prov:label": step["kind"],
        "prov:wasDerivedFrom": [{"@id": _urn(digest)} for _, digest in sorted(step["inputs"].items())],
        "prov:wasGeneratedBy": _activity(step["stage"], step["code_version"], step["config"]),
    }


def _activity(stage: str, code_version: int, config: Mapping[str, Json]) -> dict[str, Json]:
    return {
        "@type": "prov:Activity",
        "prov:label": f"maskmill {stage}",
        "prov:value": json.dumps(dict(config), sort_keys=True, ensure_ascii=False),
        "prov:wasAssociatedWith": _agent(stage, code_version),
    }


def _agent(stage: str, code_version: int) -> dict[str, Json]:
    return {"@type": "prov:SoftwareAgent", "prov:label": f"maskmill {stage}, code version {code_version}"}


def _urn(digest: str) -> str:
    return f"urn:sha256:{digest}"


def _file(name: str, digest: FileDigest) -> dict[str, Json]:
    return {
        "@type": "cr:FileObject",
        "@id": name,
        "name": name,
        "contentUrl": name,
        "contentSize": f"{digest.size} B",
        "encodingFormat": _PARQUET,
        "sha256": digest.sha256,
    }


def _images(plan: Plan, facts: DatasetFacts) -> dict[str, Json]:
    fields = {
        name: _field(name, text) for name, text in _DESCRIBED.items() if name != "image" or plan.config["embed_images"]
    }
    digests = {source.role: source.digest for source in plan.inputs}
    labelled = next(step for step in facts.provenance if step["digest"] == digests["labels"])
    fields["mask"]["prov:wasDerivedFrom"] = {"@id": _urn(labelled["digest"])}
    if "compared" in digests:  # the other labels of method_agreement
        fields["objects"]["prov:wasDerivedFrom"] = {"@id": _urn(digests["compared"])}
    fields["mask"]["prov:wasAttributedTo"] = _agent(labelled["stage"], labelled["code_version"])
    return {"@type": "cr:RecordSet", "@id": IMAGES, "key": {"@id": f"{IMAGES}/id"}, "field": list(fields.values())}


def _field(name: str, text: str) -> dict[str, Json]:
    described: dict[str, Json] = {"@type": "cr:Field", "@id": f"{IMAGES}/{name}", "name": name, "description": text}
    if name == "objects":
        return described | {"isArray": True, "subField": [_sub_field(part.name, str(part.type)) for part in OBJECT]}
    if name == "labels":
        return described | {"dataType": ["sc:Integer", "cr:Label"], "isArray": True, "source": _column(name)}
    if name in ("image", "mask"):
        meaning = ["cr:SegmentationMask", "sc:ImageObject"] if name == "mask" else ["sc:ImageObject"]
        return described | {"dataType": meaning, "source": _column(name, "bytes")}
    kind = {"kept": "sc:Boolean", "height": "sc:Integer", "width": "sc:Integer"}.get(name, "sc:Text")
    return described | {"dataType": kind, "source": _column(name)}


def _sub_field(name: str, kind: str) -> dict[str, Json]:
    described = {"@type": "cr:Field", "@id": f"{IMAGES}/objects/{name}", "name": name, "dataType": _TYPES[kind]}
    return described | {"source": _column("objects", name)}


def _column(name: str, inner: str = "") -> dict[str, Json]:
    source: dict[str, Json] = {"fileSet": {"@id": FILES}, "extract": {"column": name}}
    return source | ({"transform": {"jsonPath": inner}} if inner else {})


def _classes(facts: DatasetFacts) -> dict[str, Json]:
    names = class_names(facts.classes)
    return {
        "@type": "cr:RecordSet",
        "@id": CLASSES,
        "dataType": "sc:Enumeration",
        "key": {"@id": f"{CLASSES}/index"},
        "field": [
            {"@type": "cr:Field", "@id": f"{CLASSES}/index", "name": "index", "dataType": "sc:Integer"},
            {"@type": "cr:Field", "@id": f"{CLASSES}/name", "name": "name", "dataType": "sc:Text"},
        ],
        "data": [{f"{CLASSES}/index": index, f"{CLASSES}/name": name} for index, name in names.items()],
    }
