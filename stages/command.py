"""The declaration of a command that makes an artifact: its options, and the artifacts that it reads.

A `Command` is declared once. Its shell options, its table in a recipe, `maskmill.run`, `maskmill plan` and the names
that the package exports follow from it. It is cheap to import, so that `--help` loads no torch; the work is in its
`Stage` or `WholeStage`, which `work` names.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .stage import Stage, WholeStage


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """An input: which artifacts it may be, and how a user names one."""

    kind: str  # kinds of artifact, separated by |
    help: str = ""
    metavar: str = ""
    flag: str = ""  # its option; without one it is an argument
    key: str = ""  # its key in a recipe and in Python, if a recipe may name an artifact that no step makes
    is_optional: bool = False
    is_found: bool = False  # if it is not named, it is found from the first artifact that is
    found_from: str = ""  # or from the artifact of this role
    several: str = ""  # if it may be given several times: the role of the second and later ones
    made_by: Sequence[str] | None = None  # steps of a recipe; None: the latest earlier step that makes this kind
    or_field: str = (
        ""  # a config field that takes a value that is not an artifact: a file, or a file with a list of ids
    )

    @property
    def has_parameter(self) -> bool:
        """Whether it has a shell argument or option of its own; otherwise the option of `or_field` names it."""
        return bool(self.metavar or self.flag or not self.or_field)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetiredOption:
    """An option of earlier versions, which is accepted with a warning."""

    instead: str  # what to use instead
    contradicted_by: Mapping[str, str]  # each of its values → the option that says the opposite


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    name: str  # its table in a recipe, the first argument of `maskmill.run`, and the stage that plan.json names
    makes: str  # kind of artifact
    config: type[Any]
    work: str  # module and name of its stage, such as ".refine.stage:STAGE"
    roles: Mapping[str, Role] = field(default_factory=dict)
    help: str = ""  # follows the registry's line in `--help`
    has_units: bool = True
    follows_source: bool = False  # --update changes its rows with the files outside
    is_training: bool = False  # its metric lines can be drawn as curves
    runs_together: bool = False  # in several processes under torchrun
    in_recipes: bool = True
    resumes: bool = True  # a stopped run resumes; otherwise it starts again
    retired: Mapping[str, RetiredOption] = field(default_factory=dict)

    @property
    def stage(self) -> "Stage | WholeStage":
        """Its implementation; importing it may take seconds."""
        module, _, name = self.work.partition(":")
        stage: Stage | WholeStage = getattr(import_module(module, __package__), name)
        return stage

    def role(self, name: str) -> Role:
        """The role of a name; several artifacts of one role are numbered, such as view2 and view3."""
        if name in self.roles:
            return self.roles[name]
        base = name.rstrip("0123456789")
        return next(role for first, role in self.roles.items() if base in (first, role.several))


IMAGES = Role(
    kind="images",
    flag="--images",
    metavar="DIR",
    help="Images artifact, if it is no longer where it was.",
    is_found=True,
)
TOKENS = Role(kind="tokens", flag="--tokens", metavar="DIR", is_optional=True)
FEATURES = RetiredOption(
    instead="--tokens or --backbone says it", contradicted_by={"online": "--tokens", "cached": "--backbone"}
)
