"""What a user of the page may choose, as settings of a fusion and as the query of a link."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ddfm._checks import check_choice, check_range, problem
from ddfm.config import TONES, FuseConfig
from ddfm.presets import PRESETS
from ddfm.registration import ALIGNS

__all__ = ["MOST_STEPS", "PRESET_WORDS", "Choices"]

#: Evaluations that one request may ask for.
MOST_STEPS = 100
#: Presets in plain words, in the order of the page.
PRESET_WORDS = {
    "balanced": "Thermal and visible",
    "fast": "Thermal and visible, quick on noisy pictures",
    "medical": "Scans: CT, PET or SPECT with MRI",
    "stack": "One camera: exposures, or focus",
    "paper": "The paper's Algorithm 1 (a minute or more)",
    "released": "The authors' released code (a minute or more)",
}


@dataclasses.dataclass(frozen=True)
class Choices:
    """steps: network evaluations, -1: as the preset says. noise: "", "auto", or as ``FuseConfig.noise_std``.

    Everything else as in ``FuseConfig``; tone "" and range "" are the preset's. Raises DDFMError.
    """

    preset: str = "balanced"
    steps: int = -1
    seed: int = 0
    noise: str = ""
    tone: str = ""
    align: str = "none"
    range: str = ""
    clahe: bool = False

    def __post_init__(self) -> None:
        for name in ("steps", "seed"):
            if not isinstance(getattr(self, name), int):
                raise problem(name, repr(getattr(self, name))[:40], "a whole number")
        check_choice("preset", self.preset, tuple(PRESETS))
        check_range("steps", self.steps, -1, MOST_STEPS)
        check_range("seed", self.seed, -(2**31), 2**31)
        check_choice("tone", self.tone, ("", *TONES))
        check_choice("align", self.align, ALIGNS)
        self.config()

    def config(self) -> FuseConfig:
        """The settings. Raises DDFMError."""
        config = FuseConfig(
            preset=self.preset,
            steps=None if self.steps < 0 else self.steps,
            seed=self.seed,
            noise_std=self.noise.strip() or None,
            tone=self.tone or None,
            align=self.align,
            range=self.range.strip() or None,
            clahe=self.clahe,
        )
        config.resolve()
        return config

    @classmethod
    def from_query(cls, query: Mapping[str, str]) -> Choices:
        """The choices of a link; what is not one of them is left alone. Raises DDFMError."""
        found: dict[str, Any] = {}
        for field in dataclasses.fields(cls):
            text = query.get(field.name)
            if text is None:
                continue
            if field.name in ("steps", "seed", "clahe"):
                try:
                    found[field.name] = bool(int(text)) if field.name == "clahe" else int(text)
                except ValueError as error:
                    raise problem(field.name, repr(text[:40]), "a whole number", "Is the link cut?") from error
            else:
                found[field.name] = text
        return cls(**found)

    @classmethod
    def of_page(cls, *values: Any) -> Choices:
        """The choices of the page's controls, in the order of the fields; an empty number is the default."""
        names = [field.name for field in dataclasses.fields(cls)]
        given = dict(zip(names, values, strict=True))
        for name, default in (("steps", -1), ("seed", 0)):
            value = given[name]
            if value is None or value == "":
                given[name] = default
            elif float(value) != int(value):
                raise problem(name, value, "a whole number")
            else:
                given[name] = int(value)
        return cls(**given)
