"""What a command that makes an artifact asks for: its options, and the artifacts that it reads.

A `Command` is the one declaration of a command. Its shell options, its table in a recipe, `maskmill.run`, `maskmill
plan` and the names that the package exports follow from it. It is cheap to import, so that asking for help loads no
torch; how the work is done is in its `Stage` or `WholeStage`, which `work` names.
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
    flag: str = ""  # of the option that names it; without one it is an argument
    key: str = ""  # in a recipe and in Python, of one that a recipe may name although no step makes it
    is_optional: bool = False
    is_found: bool = False  # where it is not named, the first artifact that is leads to it
    found_from: str = ""  # or that of this role
    several: str = ""  # of an argument or option that may be given several times: the role of the second and further
    made_by: Sequence[str] | None = None  # steps of a recipe; None: the latest before it that makes such a kind
    # A config field that takes what is named where it is no artifact: a file, or a list of ids in a file.
    or_field: str = ""

    @property
    def has_parameter(self) -> bool:
        """Whether a shell has an argument or option for it, or the option of the field names it as well."""
        return bool(self.metavar or self.flag or not self.or_field)


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    name: str  # its table in a recipe, the first argument of `maskmill.run`, and the stage that plan.json names
    makes: str  # kind of artifact
    config: type[Any]
    work: str  # where its stage is, such as ".refine.stage:STAGE" beside this module
    roles: Mapping[str, Role] = field(default_factory=dict)
    help: str = ""  # what follows the registry's line in `--help`
    has_units: bool = True
    follows_source: bool = False  # its rows change with what lies outside, on --update
    is_training: bool = False  # its metric lines can be drawn as curves
    runs_together: bool = False  # under torchrun
    in_recipes: bool = True
    resumes: bool = True  # stopped and started again it goes on; otherwise it begins anew
    retired: Mapping[str, str] = field(default_factory=dict)  # options of earlier versions → what to use instead

    @property
    def stage(self) -> "Stage | WholeStage":
        """How it is done; importing it may take seconds."""
        module, _, name = self.work.partition(":")
        found: Stage | WholeStage = getattr(import_module(module, __package__), name)
        return found

    def role(self, name: str) -> Role:
        """Several artifacts may have one role and are numbered: view2 and view3 are views."""
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
