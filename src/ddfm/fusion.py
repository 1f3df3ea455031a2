"""One fusion from end to end: read, check, luma, sample, tone, chroma, write, report."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from torch import Tensor

from ddfm import color
from ddfm._checks import problem
from ddfm._provenance import versions
from ddfm.config import DTYPES, FuseConfig, check_device
from ddfm.io import Image, encode_image, write_bytes
from ddfm.large import can_fuse, fuse_large
from ddfm.noisy import notes as noise_notes
from ddfm.noisy import settled, with_noise
from ddfm.opening import Gathered, Source
from ddfm.palette import has_false_colors
from ddfm.pictures import pair_seed, put_color, stretch, to_luma, to_plane
from ddfm.pipeline import DDFMOutput, DDFMPipeline
from ddfm.presets import MEDICAL, Preset, settings_hash
from ddfm.priors import prior_info
from ddfm.registration import Transform, checkerboard, save_transforms

__all__ = ["FuseConfig", "Fused", "Fuser", "Opened", "Settled", "fuse", "fuser_for"]

#: Above so many pixels the network sees an image in tiles of so many a side, unless told otherwise.
AUTO_PIXELS = 1 << 22
AUTO_TILE = 1024
#: The same for a network with so many times the bundled one's channels a pixel, and memory in proportion, or more.
HEAVY = 4.0
HEAVY_PIXELS = 1 << 20
HEAVY_TILE = 512
#: Above so many, and for what ``large`` can do, EM runs in strips and the network in tiles of so many a side.
STRIP_PIXELS = 1 << 24
STRIP_TILE = 512


@dataclasses.dataclass(frozen=True, eq=False)
class Fused:
    """A fused image: ``data`` float32 in [0, 1], (H, W) or (H, W, 3), and ``report``, what made it.

    transforms: of the sources but the last, where they were aligned; pictures: then the sources on the common grid,
    uint8, to judge it by.
    """

    data: np.ndarray
    report: dict[str, Any]
    bit_depth: int = 8
    transforms: tuple[Transform, ...] = ()
    pictures: tuple[np.ndarray, ...] = ()

    def encode(self, suffix: str = ".png") -> bytes:
        """The content of an image file with that suffix."""
        return encode_image(self.data, suffix, bit_depth=self.bit_depth)

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write PNG, JPEG, TIFF, BMP or WebP by the suffix; never over an existing file unless told to."""
        path = Path(path)
        write_bytes(path, self.encode(path.suffix), overwrite=overwrite)
        return path

    def save_transform(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the transforms as JSON, for ``transform``; DDFMError where nothing was aligned."""
        self._check_aligned()
        return save_transforms(path, self.transforms, overwrite=overwrite)

    def checkerboard(self, number: int = 1) -> np.ndarray:
        """Squares of a source (1 is the first) and of the last in turn, float32 in [0, 1]: edges should go on."""
        self._check_aligned()
        if not 1 <= number < len(self.pictures):
            raise problem("number", number, f"1 to {len(self.pictures) - 1}, a source but the last")
        return checkerboard(self.pictures[number - 1] / np.float32(255), self.pictures[-1] / np.float32(255))

    def _check_aligned(self) -> None:
        if not self.transforms:
            raise problem("align", "none", "a fusion with align or transform", "Fuse with align='affine', for example.")

    def to_pil(self) -> Any:
        """A Pillow image, 8 bits."""
        from PIL import Image as PILImage

        return PILImage.fromarray(eight_bits(self.data))


@dataclasses.dataclass(frozen=True, eq=False)
class Opened:
    """Sources on one grid and what is to be told of them; pictures: see ``Fused``."""

    gathered: Gathered
    notes: list[str]
    pictures: tuple[np.ndarray, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.gathered.images[0].size


@dataclasses.dataclass(frozen=True, eq=False)
class Settled:
    """What goes into the pipeline: lumas (1, 1, H, W) in [0, 1], the preset for them, their noise on [0, 1]."""

    lumas: list[Tensor]
    preset: Preset
    noise: tuple[float, ...]


class Fuser:
    """Loads prior and settings once, then fuses any number of pairs, each independent of the others."""

    def __init__(self, config: FuseConfig | None = None, preset: Preset | None = None) -> None:
        """``preset``: settings of one's own in place of the named ones; the config's other fields still count."""
        self.config = config or FuseConfig()
        self.preset = preset or self.config.resolve()
        self.prior = prior_info(self.config.prior)
        pipeline = DDFMPipeline.from_pretrained(self.config.prior, torch_dtype=DTYPES[self.preset.dtype])
        with _quiet_diffusers():  # float16 on a CPU is slow, and works
            self.pipeline = pipeline.to(check_device(self.config.device))
        self.pipeline.set_progress_bar_config(disable=True)
        if self.config.noise_std is None and pipeline.config.color != "luma":  # such a prior removes no noise
            self.preset = self._without_noise()
        pipeline.check_tile(self.config.tile or None)
        if self.preset.noise_std is not None:
            pipeline.check_cleans()
        if self.pipeline.device.type == "cpu":  # faster there, equal to rounding: docs/performance.md
            self.pipeline.unet.to(memory_format=torch.channels_last)
        if self.config.compile:
            self.pipeline.compile_network()

    @property
    def tone(self) -> str:
        """The config's, or else the preset's."""
        return self.config.tone or self.preset.tone

    @property
    def settings(self) -> dict[str, Any]:
        """Everything but the sources that shapes the bytes of a result, for reports and for resuming."""
        chosen = self.preset.settings()
        extra = {
            "tile": "auto" if self.config.tile is None else self.config.tile,
            "tone": self.tone,
            "bit_depth": self.config.bit_depth,
            "seed": self.config.seed,
        }
        if self.config.compile:  # only then, so that runs without it can still be taken up again
            extra["compile"] = True
        extra |= self.config.preparation.settings()
        return {
            "preset": self.preset.label,
            "hash": settings_hash(chosen, self.prior["sha256"]),
            **extra,
            "device": str(self.pipeline.device),
            "threads": torch.get_num_threads(),
            "prior": {k: self.prior[k] for k in ("name", "sha256", "licence")},
            "settings": chosen,
        }

    def fuse(self, *sources: Source, on_step: Callable[[int, int], Any] | None = None) -> Fused:
        """Fuse two or more sources of one size; ``on_step(done, of)`` is called after each network evaluation.

        Raises DDFMError naming the source and the remedy.
        """
        begun = time.perf_counter()
        return self.fuse_opened(self.open(sources), on_step, begun)

    def fuse_opened(
        self, opened: Opened, on_step: Callable[[int, int], Any] | None = None, begun: float | None = None
    ) -> Fused:
        """As ``fuse``, for who needs the sources too; those of a very large picture are taken out of ``opened``.

        begun: ``time.perf_counter()`` that the report's seconds count from; now by default.
        """
        begun = time.perf_counter() if begun is None else begun
        data, found = (
            self._large(opened.gathered.images, on_step)
            if self.in_strips(*opened.size)
            else self._whole(opened.gathered.images, on_step)
        )
        return self.result(opened, data, found, time.perf_counter() - begun)

    def open(self, sources: Sequence[Source]) -> Opened:
        """The sources on one grid, all checked, their memory too. Raises DDFMError."""
        self.config.check_count(len(sources))
        gathered = self.config.preparation.gather(sources)
        images, notes = gathered.images, gathered.notes + self._notes() + self.palette_notes(gathered.images[0])
        check_memory(*images[0].size, self.bytes_needed(*images[0].size))
        pictures = tuple(eight_bits(image.data) for image in images) if gathered.transforms else ()
        return Opened(gathered, notes, pictures)

    def result(self, opened: Opened, data: np.ndarray, found: dict[str, Any], seconds: float) -> Fused:
        """The picture with its report; ``found``: what ``picture`` says of the sources."""
        gathered = opened.gathered
        report = {
            "inputs": gathered.inputs,
            **self.settings,
            **alignment(gathered),
            "versions": versions(),
            "warnings": opened.notes + found.pop("warnings"),
            "seconds": round(seconds, 3),
            "size": list(data.shape[:2]),
            "tile": self._tile(*data.shape[:2]),
            **found,
        }
        return Fused(data, report, self.config.bit_depth, gathered.transforms, opened.pictures)

    def _notes(self) -> list[str]:
        """What the user should know of these settings."""
        if self.preset.steps or self.preset.noise_std or self.config.prior == "bundled":
            return []
        return [f"the prior is not used: {self.preset.name} makes no network evaluations here; --steps 2 makes two"]

    def palette_notes(self, first: Image, name: str = "source 1") -> list[str]:
        """A warning where the first source shows heat in false colours; settings for scans are made for those."""
        thermal = self.preset.name not in MEDICAL.values() and self.preset.chroma == "last"
        if not thermal or not has_false_colors(first.data):
            return []
        return [
            f"{first.path or name}: looks painted with a colour palette, and its luma does not tell hot from cold; "
            "export it in grey (white-hot), or say --preset medical where it is PET or SPECT"
        ]

    @property
    def _plain(self) -> Preset:
        """The preset for pictures too large to be asked about noise, unless the user speaks of it."""
        return self.preset if self.config.noise_std is not None else self._without_noise()

    def _without_noise(self) -> Preset:
        """The preset where no noise is looked for; ``steps`` then counts evaluations on the fused image."""
        preset = with_noise(self.preset, 0)
        return preset if self.config.steps is None else preset.with_steps(self.config.steps)

    def in_strips(self, height: int, width: int) -> bool:
        """Whether a picture of this size is fused in strips, which looks at no more than a part of it at a time."""
        return height * width > STRIP_PIXELS and can_fuse(self._plain, self.pipeline)

    def bytes_needed(self, height: int, width: int) -> float:
        """What a picture of this size takes at its peak, beside the program itself."""
        pixels, tile = height * width, self._tile(height, width)
        network = BYTES_PER_PIXEL * (max(1.0, self._heaviness) if self.pipeline.device.type == "cpu" else 1.0)
        if not tile:
            return pixels * network
        rest = STRIP_BYTES_PER_PIXEL if self.in_strips(height, width) else TILED_BYTES_PER_PIXEL
        return pixels * rest + min(pixels, tile**2) * network

    @property
    def _heaviness(self) -> float:
        """Channels a pixel at the network's first level, in units of the bundled prior's 64 on 2x2 pixels."""
        first: int = self.pipeline.unet.config.block_out_channels[0]
        return first / self.pipeline.config.unshuffle**2 / 16

    def _tile(self, height: int, width: int) -> int | None:
        """The tile that an image of this size is given; None for the whole at once."""
        wanted = self.config.tile
        if self.in_strips(height, width):
            return wanted or STRIP_TILE
        if wanted is None:
            heavy = self._heaviness >= HEAVY
            limit, tile = (HEAVY_PIXELS, HEAVY_TILE) if heavy else (AUTO_PIXELS, AUTO_TILE)
            wanted = tile if height * width > limit else 0
        if wanted and max(height, width) <= wanted:
            return None
        return wanted or None

    def _large(
        self, images: list[Image], on_step: Callable[[int, int], Any] | None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """As ``_whole`` for a very large picture; ``images`` is emptied, so that their floats are freed."""
        planes = [to_plane(images.pop(0)) for _ in range(len(images))]
        generator = torch.Generator().manual_seed(pair_seed(planes, self.config.seed))
        tile = self.config.tile or STRIP_TILE
        preset = self._plain
        luma = fuse_large(self.pipeline, planes, preset, generator, tile, on_step or (lambda done, of: None))
        asked = self.preset.noise_std is not None
        notes = ["noise is not looked for above 16 megapixels; --noise-std says what there is"] * asked
        return put_color(stretch(luma, self.tone), planes, preset.chroma), {"warnings": notes}

    def _whole(
        self, images: list[Image], on_step: Callable[[int, int], Any] | None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """The picture, float32 (H, W) or (H, W, 3), and for the report: noise of its sources, what to warn of."""
        ready = self.ready(images)
        seed = pair_seed(ready.lumas, self.config.seed)
        return self.picture(images, ready, self.sample(ready.lumas, ready.preset, seed, on_step).unclipped)

    def ready(self, images: Sequence[Image]) -> Settled:
        """What goes into the pipeline for these images of one size."""
        lumas = [to_luma(image) for image in images]
        return Settled(lumas, *self.settle(lumas))

    def picture(self, images: Sequence[Image], ready: Settled, luma: Tensor) -> tuple[np.ndarray, dict[str, Any]]:
        """The fused luma (1, 1, H, W), not clipped, as a picture; and for the report: noise, what to warn of."""
        found: dict[str, Any] = {"warnings": noise_notes(ready.lumas, ready.noise)}
        if ready.noise and (any(ready.noise) or self.config.noise_std is not None):
            found["noise_std"] = [round(value, 5) for value in ready.noise]
        planes = [color.Plane(image.data) for image in images]
        return put_color(stretch(luma, self.tone), planes, ready.preset.chroma), found

    def settle(self, lumas: list[Tensor]) -> tuple[Preset, tuple[float, ...]]:
        """The preset for these sources, and their noise on [0, 1]; () where no noise was asked about."""
        preset, noise = settled(self.preset, lumas)
        if noise and not any(noise):  # "auto" found none: as without the option
            preset = self._without_noise()
        return preset, noise

    def sample(
        self, lumas: list[Tensor], preset: Preset, seed: int, on_step: Callable[[int, int], Any] | None = None
    ) -> DDFMOutput:
        """The pipeline's answer for lumas (1, 1, H, W) in [0, 1] with these settings and this noise."""

        def report_step(pipe: Any, i: int, t: int, tensors: dict[str, Tensor]) -> None:
            if on_step:
                on_step(i + 1, preset.steps)

        return self.pipeline(
            *lumas,
            num_inference_steps=preset.steps,
            likelihood=preset.likelihood,
            sampler=preset.sampler,
            start=preset.start,
            warm_sweeps=preset.warm_sweeps,
            start_noise=preset.start_noise,
            luma=preset.luma,
            tile=self._tile(*lumas[0].shape[-2:]),
            noise_std=preset.noise_std,
            draws=max(preset.draws, 1),
            generator=[torch.Generator().manual_seed(seed)],
            callback_on_step_end=report_step,
        )


def alignment(gathered: Gathered) -> dict[str, Any]:
    """Of the report: the transforms, and how much of the picture each source shows."""
    if not gathered.transforms:
        return {}
    done = [one.plain() | {"inside": round(one.share_inside, 3)} for one in gathered.transforms]
    return {"align": {"kind": gathered.transforms[0].kind, "transforms": done}}


def eight_bits(data: np.ndarray) -> np.ndarray:
    """uint8 of a picture in [0, 1]; uint8 as it is."""
    if data.dtype == np.uint8:
        return data
    levels: np.ndarray = np.rint(data * 255).astype(np.uint8)
    return levels


@contextlib.contextmanager
def _quiet_diffusers() -> Iterator[None]:
    from diffusers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)


def fuse(*sources: Source, **options: Any) -> Fused:
    """Fuse two or more pictures of the same scene, the thermal (or functional) one first.

    A source is a path, a Pillow image, a numpy array (uint8, uint16, or float in [0, 1]; (H, W) or (H, W, C)) or a
    torch tensor ((H, W) or (C, H, W)). Options are the fields of ``FuseConfig``. The prior stays loaded between calls.
    Raises DDFMError for anything that cannot be fused.
    """
    return fuser_for(**options).fuse(*sources)


def fuser_for(**options: Any) -> Fuser:
    """A fuser with these fields of ``FuseConfig``, which stays loaded between calls. Raises DDFMError."""
    fields = [f.name for f in dataclasses.fields(FuseConfig)]
    if unknown := sorted(set(options) - set(fields)):
        raise problem("options", unknown, f"some of {fields}")
    return _fuser(FuseConfig(**options))


@functools.lru_cache(maxsize=2)
def _fuser(config: FuseConfig) -> Fuser:
    return Fuser(config)


#: Peak bytes a pixel with the bundled prior, measured (benchmarks/memory.py, large.py), colour included: all of it,
#: where the network sees the whole image; what comes beside a tile; the same with EM in strips.
BYTES_PER_PIXEL = 1200
TILED_BYTES_PER_PIXEL = 400
STRIP_BYTES_PER_PIXEL = 34


def check_memory(height: int, width: int, need: float) -> None:
    """Refuse an image that cannot fit this machine's memory (``need``, bytes), rather than be killed in the middle."""
    free = psutil.virtual_memory().available  # counts what the page cache would give back
    if need > free:
        raise problem(
            "sources",
            f"{width}x{height} pixels, about {need / 1e9:.1f} GB to fuse",
            f"what fits the {free / 1e9:.1f} GB of free memory",
            "Reduce or crop them, or let the network see less of them at once: --tile 256.",
        )
