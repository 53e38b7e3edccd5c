"""Limits on pictures, checked on the header before decoding."""

from dataclasses import dataclass

from ..artifact.config import check_config, checks_itself, option
from ..errors import ConfigError


@checks_itself
@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    # The default is Pillow's own threshold for suspicion: 256 MiB as RGB.
    max_pixels: int = option(89_478_485, "Reject pictures with more pixels.", at_least=1)
    min_side: int = option(8, "Reject pictures with a shorter side, in pixels.", at_least=1)
    max_aspect: float = option(32.0, "Reject pictures with a larger aspect ratio (longer side by shorter).", at_least=1)

    def __post_init__(self) -> None:
        check_config(self)
        if self.min_side**2 > self.max_pixels:
            raise ConfigError(
                f"no picture fits both --min-side {self.min_side} and --max-pixels {self.max_pixels}; "
                f"choose --max-pixels of at least {self.min_side**2}"
            )


DEFAULT_LIMITS = Limits()
