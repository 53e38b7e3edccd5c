"""Features of patches as users write them. Imports nothing heavy."""

from dataclasses import dataclass
from typing import Literal

from ...manifests.errors import ConfigError

FEATURE_FORMS = "keys, raw-keys or tokens[:BLOCK]"


@dataclass(frozen=True, slots=True)
class Feature:
    field: Literal["keys", "raw-keys", "tokens"]  # keys are those of the last block, without their projection's bias
    block: int | None = None  # of tokens; None for the last

    def __str__(self) -> str:
        return self.field if self.block is None else f"{self.field}:{self.block}"


KEYS, RAW_KEYS = Feature("keys"), Feature("raw-keys")


def parse_feature(text: str) -> Feature:
    """The inverse of `str(feature)`."""
    field, colon, block = text.partition(":")
    if field == "tokens" and (not colon or block.isdecimal()):
        return Feature("tokens", int(block) if colon else None)
    if text in (str(KEYS), str(RAW_KEYS)):
        return KEYS if text == str(KEYS) else RAW_KEYS
    raise ConfigError(f"--feature {text!r} is not a feature; choose {FEATURE_FORMS}, with blocks counted from 0")
