"""Says when the maps of a finished run can hardly be good, and what is not known of their backbone."""

from collections.abc import Iterable, Iterator
from statistics import median

import pyarrow as pa

from ...manifests.artifact.artifact import Artifact
from ...manifests.artifact.facts import MapsFacts, TokensFacts
from ..maps.object_classes import NO_LABEL, NO_STRUCTURE
from ..maps.threshold_rules import PAPER_THRESHOLD, PAPER_WEIGHTS, is_paper_weights
from ..scores.verdict import FEWEST_PICTURES
from ..stage import Inputs
from ..vision.feature_forms import RAW_KEYS
from ..vision.profiles import PROFILES, family_of_tokens
from .computing import NO_INSTANCE
from .config import TOKENS, MaskConfig
from .methods import find_method
from .separation import LIMITS, Separation, sample_separations

NEARLY_ALL, NEARLY_NONE, WARNED_SHARE = 0.95, 0.01, 0.2
BARELY_SHARE = 0.5  # of maps; at most a tenth of good ones barely separate, and four fifths of bad ones


def warn(config: MaskConfig, inputs: Inputs, maps: Artifact) -> list[str]:
    """A wrong threshold gives masks of nearly everything or nearly nothing; a wrong tau gives graphs without a cut; a
    wrong feature or backbone gives maps that are nearly flat."""
    facts, tokens = MapsFacts.of(maps), TokensFacts.of(inputs[TOKENS])
    # The limits were not measured on a family whose own choice is raw keys, and those of others crowd together.
    is_judged = facts.score_kind in LIMITS and not _is_raw_by_profile(tokens)
    separations = sample_separations(maps) if is_judged else []
    return [
        *_warn_of_threshold(config, facts),
        *warn_of_shares(config, maps.row_batches(["status", "note", "foreground"])),
        *_warn_of_weakness(config, tokens),
        *warn_of_separations(separations, facts.score_kind, _find_cure(config, tokens)),
    ]


def notice(config: MaskConfig, inputs: Inputs) -> list[str]:
    """Patches are compared by what suits the backbone's family; for some families nobody has measured what does."""
    tokens = TokensFacts.of(inputs[TOKENS])
    family = family_of_tokens(tokens)
    profile = PROFILES[family]
    is_random = tokens.weights.source.startswith("random:")
    if not _compares_patches(config) or profile.is_measured or profile.weakness or is_random:
        return []
    backbone = f"{tokens.backbone.name} ({tokens.weights.source})"
    known = (
        f"the family of {backbone} is unknown"
        if family == "unknown"
        else f"nothing was measured here on the family of {backbone}, {family}"
    )
    cure = "try another --feature on pictures with true masks, and compare by `maskmill evaluate masks`"
    return [f"{known}, so {config.feature} may not be the best to compare its patches by; {cure}"]


def _warn_of_threshold(config: MaskConfig, facts: MapsFacts) -> Iterator[str]:
    source = facts.weights.source
    if config.method == "cst" and config.threshold == PAPER_THRESHOLD and not is_paper_weights(source):
        yield (
            f"threshold 0.4 belongs to {PAPER_WEIGHTS}.pth (DINO's ViT-S/8 of 300 epochs, as in CST), but these tokens "
            f"are of {source}; choose --threshold otsu, or extract with that file"
        )


def warn_of_shares(config: MaskConfig, batches: Iterable[pa.RecordBatch]) -> list[str]:
    """From the columns status, note and foreground of the maps."""
    warnings = []
    total = extreme = uncut = 0
    for batch in batches:
        columns = (batch.column(name).to_pylist() for name in ("status", "note", "foreground"))
        for status, note, share in zip(*columns, strict=True):
            if status == "ok" and note not in (NO_LABEL, NO_INSTANCE):
                total += 1
                is_uncut = config.tau is not None and note == NO_STRUCTURE
                uncut += is_uncut
                extreme += not is_uncut and (share > NEARLY_ALL or share < NEARLY_NONE)
    if uncut > WARNED_SHARE * total:
        warnings.append(f"{uncut} of {total} maps ({uncut / total:.0%}) {_explain_no_structure(config)}")
    if extreme > WARNED_SHARE * total:
        warnings.append(
            f"{extreme} of {total} maps ({extreme / total:.0%}) are above the threshold, {config.threshold}, on more "
            "than 95 % or less than 1 % of the picture; try another --threshold"
        )
    return warnings


def _compares_patches(config: MaskConfig) -> bool:
    return bool(find_method(config.method).compares_patches or config.propagate)


def _explain_no_structure(config: MaskConfig) -> str:
    if find_method(config.method).learns_from_masks:
        return (
            f"are empty (note {NO_STRUCTURE}): no patch looks like the objects of their class's supports; draw more "
            "supports with `maskmill fit --gt-per-class`"
        )
    return (
        f"have no cut (note {NO_STRUCTURE}): tau {config.tau:g} does not separate their keys; try another --tau, a "
        "higher one if all keys agree"
    )


def _warn_of_weakness(config: MaskConfig, tokens: TokensFacts) -> Iterator[str]:
    weakness = PROFILES[family_of_tokens(tokens)].weakness
    if weakness and _compares_patches(config):
        yield (
            f"{weakness}, and --method is {config.method}, which compares them; extract with a --backbone of another "
            "family, such as DINOv2"
        )


def warn_of_separations(separations: list[Separation], kind: str, cure: str) -> Iterator[str]:
    """Silent on too few maps."""
    barely = sum(one.difference(kind) < LIMITS[kind] for one in separations)
    if len(separations) < FEWEST_PICTURES or barely <= BARELY_SHARE * len(separations):
        return
    inside, outside = (median(getattr(one, side) for one in separations) for side in ("inside", "outside"))
    yield (
        f"{barely} of {len(separations)} sampled maps ({barely / len(separations):.0%}) barely separate: their median "
        f"score is {inside:.3f} inside the cut and {outside:.3f} outside; {cure}"
    )


def _is_raw_by_profile(tokens: TokensFacts) -> bool:
    return PROFILES[family_of_tokens(tokens)].feature == str(RAW_KEYS)


def _find_cure(config: MaskConfig, tokens: TokensFacts) -> str:
    extracting = "extract with another --backbone or a larger --image-size"
    if not _compares_patches(config):
        return extracting
    if config.feature == RAW_KEYS and tokens.key_bias:
        return f"choose --feature keys, or {extracting}"
    return f"try another --feature, or {extracting}"
