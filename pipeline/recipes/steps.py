"""The table of steps: which stages a recipe can name, in the order in which they run, and how each gets what it reads.

A step is one entry. Its keys in a recipe are the parameters of its stage's own function from options to a config.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from types import ModuleType
from typing import Any, Literal

from ...manifests.artifact.artifact import Artifact, Summary, open_artifact
from ...manifests.artifact.plan import Plan
from ...manifests.datasets import SOURCES
from ...manifests.errors import ConfigError
from ...manifests.files.place import Place
from ...manifests.pictures.decoder import Limits
from ...manifests.published.schema import read_id_list
from ...stages.stage import Inputs, Stage, WholeStage
from .schema import Option, Said, Taker, artifacts_of, one_of, options_of

# A path of a recipe: of a file, of a folder, of a folder inside `root`, or of weights unless they are random.
PathKind = Literal["file", "folder", "inside root", "weights"]
Configs = Mapping[str, Any]
EXTRACT, MASK, VIEWS = "extract", "mask", "views"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    name: str  # of the recipe's table
    options: Callable[[Said], Mapping[str, Option]]  # what its table may say, by what it says
    make: Callable[[Said, Inputs], Any]  # the config, of the table's values and of what the step reads
    reads: Mapping[str, Sequence[str]] = field(default_factory=dict)  # role → whose artifact: the first that there is
    given: Mapping[str, str] = field(default_factory=dict)  # key → the role of an artifact that was made elsewhere
    paths: Callable[[Said], Mapping[str, PathKind]] = lambda said: {}  # key → what it is the path of
    wants: Callable[[Any], Sequence[str]] = lambda config: ()  # the token fields that a config will read
    # Raises ConfigError for what cannot work together: configs by step, and what the recipe gives to this one by role.
    refuse: Callable[[Configs, Inputs], None] = lambda configs, given: None
    folder: str = ""  # of the stage, where it is not called as the step
    record: tuple[str, str] = ("stage", "STAGE")  # the module in it, and the stage's name there

    @property
    def stage(self) -> Stage | WholeStage:
        """Its record; importing it may take seconds."""
        module, record = self.record
        found: Stage | WholeStage = getattr(_module(self.folder or self.name, module), record)
        return found

    def config(self, values: Said, inputs: Inputs) -> Any:
        """Raises ConfigError for what cannot work."""
        return self.make({name: value for name, value in values.items() if name not in self.given}, inputs)

    def given_artifacts(self, values: Said) -> Inputs:
        """Role → the artifact that the recipe names for it."""
        roles = self.stage.roles
        return {role: open_artifact(values[key], roles[role]) for key, role in self.given.items() if key in values}


def step_of(
    name: str,
    *,
    numbers: Sequence[str] = (),
    lists: Sequence[str] = (),
    more_options: Mapping[str, Option] | None = None,
    given: Mapping[str, str] | None = None,
    paths: Mapping[str, PathKind] | None = None,
    folder: str = "",
    record: tuple[str, str] = ("stage", "STAGE"),
    **more: Any,
) -> Step:
    """A step whose keys are the parameters of NAME_config in its stage's module.

    `numbers` are text there, such as "8" or "all", and may be a number in a recipe; `lists` are lists of text, and may
    be the path of a file that has one in each line. `more_options` are keys that the recipe takes out of its table.
    """

    def function() -> Taker:
        found: Taker = getattr(_module(folder or name, record[0]), f"{name}_config")
        return found

    def options(said: Said) -> Mapping[str, Option]:
        found = options_of(function())
        loosened = dict.fromkeys(numbers, str | int | float) | {key: str | found[key].hint for key in lists}
        replaced = {key: replace(found[key], hint=hint) for key, hint in loosened.items()}
        return {**found, **replaced, **(more_options or {}), **{key: Option(key, str) for key in given or {}}}

    def make(values: Said, inputs: Inputs) -> Any:
        told = {key: str(value) if key in numbers else value for key, value in values.items()}
        told |= {key: read_id_list(told[key]) for key in lists if isinstance(told.get(key), str)}
        return function()(**{role: inputs[role] for role in artifacts_of(function())}, **told)

    kinds: Mapping[str, PathKind] = {**(paths or {}), **dict.fromkeys(lists, "file")}
    return Step(
        name=name,
        options=options,
        make=make,
        folder=folder,
        record=record,
        paths=lambda said: kinds,
        given=given or {},
        **more,
    )


def unmade_artifact() -> Artifact:
    """Stands for what a run will make, so that a config which looks at it can be checked before."""
    plan = Plan(
        stage="",
        code_version=0,
        kind="",
        config={},
        device="",
        libraries={},
        fingerprint="",
        inputs=(),
        fields={},
        field_fingerprints={},
        columns={},
        groups=(),
        segments=(),
        revision=0,
        facts={"weights": {"source": ""}},  # whose weights they are decides a default, never what is allowed
    )
    return Artifact(Place("/"), plan, Summary("", "", {}, (), {}, {}), "")


def _module(name: str, part: str = "stage") -> ModuleType:
    return import_module(f"...stages.{name}.{part}", __package__)


def _index_options(said: Said) -> Mapping[str, Option]:
    """Each layout of a dataset has keys of its own; without one, any of them is known and none is missing."""
    layout = Option("layout", one_of(SOURCES), is_required=True)
    named = SOURCES.get(str(said.get("layout")))
    if named:
        return {"layout": layout, **options_of(named), **options_of(Limits)}
    any_layout = options_of(*SOURCES.values(), Limits)
    return {"layout": layout, **{name: replace(option, is_required=False) for name, option in any_layout.items()}}


def _index_config(values: Said, inputs: Inputs) -> Any:
    source = SOURCES[values["layout"]]

    def told(taker: Taker) -> dict[str, Any]:
        return {name: values[name] for name in options_of(taker) if name in values}

    return _module("index").IndexConfig(source=source(**told(source)), limits=Limits(**told(Limits)))


INDEX_PATHS: Mapping[str, Mapping[str, PathKind]] = {
    "folder": {"root": "folder", "masks": "folder"},
    "voc": {"root": "folder", "list_file": "file", "masks": "inside root"},
    "coco": {"images": "folder", "annotations": "file"},
    "coco20i": {"root": "folder"},
    "table": {"file": "file", "root": "folder"},
}


def _fields_of_method(config: Any) -> Sequence[str]:
    found: Sequence[str] = _module("mask", "methods").find_method(config.method).reads
    return found


def _refuse_mask(configs: Configs, given: Inputs) -> None:
    """What can be told of views and of a checkpoint before the tokens are there."""
    method = _module("mask", "methods").find_method(configs["mask"].method)
    views = [config for name, config in configs.items() if name.startswith(EXTRACT)]
    _module("mask", "views").refuse_several(method, len(views))
    if any(view in views[:number] for number, view in enumerate(views)):
        raise ConfigError("views has one view twice, or that of [extract]; give each another image_size, fit or flip")
    if method.fit is None or "model" not in given:
        _module("mask", "method_fit").refuse_other_checkpoint(method, unmade_artifact(), given.get("model"))


def _refuse_without_heads(configs: Configs, given: Inputs) -> None:
    if "mask" in configs and not configs["mask"].per_head:
        raise ConfigError("reads the maps of heads; set per_head = true in [mask]")


def _refuse_without_any_truth(configs: Configs, given: Inputs) -> None:
    _refuse_without_heads(configs, given)
    if "mask" not in [each.name for each in _fields_of_index(configs)]:
        raise ConfigError("the pictures of [index] have no masks to learn from; give it masks")


def _fields_of_student(config: Any) -> Sequence[str]:
    if config.student == "linear":
        return ("tokens",)
    several = ("tokens:all", "support_tokens:all")
    return (*several, "keys", "cls_query") if config.reads_keys else several


def _refuse_padded_pairs(configs: Configs, given: Inputs) -> None:
    if configs["train"].student == "cst" and EXTRACT in configs and configs[EXTRACT].fit != "squash":
        raise ConfigError('reads a view without padding; set fit = "squash" in [extract]')


def _fields_of_index(configs: Configs) -> Sequence[Any]:
    found: Sequence[Any] = _module("index").fields(configs["index"], {}) if "index" in configs else ()
    return found


def _refuse_without_masks(configs: Configs, given: Inputs) -> None:
    if "images" not in given and "mask" not in [each.name for each in _fields_of_index(configs)]:
        raise ConfigError("the pictures of [index] have no masks to judge by; give it masks, or against an IMAGES")


STEPS: dict[str, Step] = {
    step.name: step
    for step in (
        Step(
            name="index",
            options=_index_options,
            make=_index_config,
            paths=lambda said: INDEX_PATHS.get(str(said.get("layout")), {}),
        ),
        step_of(EXTRACT, reads={"images": ["index"]}, paths={"weights": "weights"}),
        step_of(
            "mask",
            reads={"tokens": [EXTRACT], "images": ["index"]},
            given={"model": "model"},
            numbers=["supports", "threshold"],
            more_options={VIEWS: Option(VIEWS, Sequence[dict[str, Any]])},
            wants=_fields_of_method,
            refuse=_refuse_mask,
        ),
        step_of(
            "enhancer",
            folder="enhance",
            record=("enhancer_fit", "FIT"),
            reads={"maps": ["mask"], "images": ["index"]},
            lists=["gt_list"],
            refuse=_refuse_without_any_truth,
        ),
        step_of(
            "enhance",
            reads={"maps": ["mask"], "images": ["index"], "model": ["enhancer"]},
            given={"model": "model"},
            numbers=["threshold"],
            refuse=_refuse_without_heads,
        ),
        step_of("refine", reads={"maps": ["enhance", "mask"], "images": ["index"]}, given={"class_maps": "class_maps"}),
        step_of(
            "manifest",
            reads={"labels": ["refine"], "maps": ["enhance", "mask"], "images": ["index"]},
            given={"seen": "seen", "compare_with": "compared"},
            lists=["ground_truth"],
        ),
        step_of(
            "train",
            reads={"dataset": ["manifest"], "tokens": [EXTRACT], "images": ["index"]},
            wants=_fields_of_student,
            refuse=_refuse_padded_pairs,
        ),
        step_of(
            "evaluate",
            reads={"predicted": ["manifest", "refine", "enhance", "mask"], "images": ["index"]},
            given={"against": "images"},
            refuse=_refuse_without_masks,
        ),
    )
}


def steps_with(views: int) -> dict[str, Step]:
    """The table for a recipe whose [mask] names so many further views: an extraction more for each."""
    made = {f"view{number}": f"{EXTRACT}-view{number}" for number in range(2, views + 2)}
    found: dict[str, Step] = {}
    for name, step in STEPS.items():
        found[name] = step
        if name == EXTRACT:
            found |= {each: replace(step, name=each, folder=EXTRACT) for each in made.values()}
        elif name == MASK:
            found[name] = replace(step, reads={**step.reads, **{role: [each] for role, each in made.items()}})
    return found


def view_options(extract: Said) -> Mapping[str, Option]:
    """What a further view may say: in which it is another than that of [extract]."""
    options = STEPS[EXTRACT].options(extract)
    return {name: replace(options[name], is_required=False) for name in ("image_size", "fit", "flip")}
