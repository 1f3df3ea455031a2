"""The recipe of the bundled prior: an unconditional luma diffusion model, any size, trained on photographs.

v-prediction (Salimans & Ho 2022), losses weighted by level, EMA, a trapezoid learning rate. Every
batch is a function of (seed, step) alone, so a run that was stopped goes on as if it had never been.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddfm._checks import DDFMError, check_choice, check_range, problem
from ddfm.diffusion import add_noise, alpha_bar, call_network, linear_betas, snr
from ddfm.priors import weights_sha256

__all__ = ["PhotographCrops", "TrainConfig", "Trainer", "build_unet", "export", "parse_channels", "per_level_loss"]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Settings of one training run; stored in every checkpoint, compared on resume.

    ``timestep_power`` p draws t = T u^p: p > 1 spends more of the run on little noise, where the fusion
    works (uniform t gives 11 % of the samples to noise below sigma = 50/255; p = 1.5 gives 24 %).

    ``weighting``: "relative" (each level against what a Gaussian prior would lose there, see ``relative_weight``)
    or "min-snr" (Hang et al. 2023, with ``min_snr_gamma``), under which the highest levels, whose loss is a
    thousand times smaller, are hardly learnt.
    ``tone_below``: contrast, brightness and inversion are varied only below this timestep. Above it an image is
    little more than its brightness and layout, and there the variation would teach a wrong mean.
    ``start_from``: name or folder of a prior whose weights are the first ones; None for random weights.
    """

    channels: tuple[int, ...] = (64, 64, 96, 128)
    layers_per_block: int = 1
    unshuffle: int = 2
    steps: int = 8000
    batch_size: int = 16  # of 64 x 64; larger crops come in proportionally smaller batches
    crops: tuple[int, ...] = (64, 96, 128)
    learning_rate: float = 5e-4
    warmup: int = 300
    cooldown: float = 0.25  # last fraction of the run, learning rate falling to zero
    ema_decay: float = 0.999
    weighting: str = "relative"
    min_snr_gamma: float = 50.0
    timestep_power: float = 1.5
    tone_below: int = 500
    start_from: str | None = None
    dtype: str = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        check_range("steps", self.steps, 1, 10**9)
        check_range("batch_size", self.batch_size, 1, 10**6)
        check_range("learning_rate", self.learning_rate, 0, 1, open_low=True)
        check_choice("dtype", self.dtype, tuple(DTYPES))
        check_choice("weighting", self.weighting, ("relative", "min-snr"))
        check_range("cooldown", self.cooldown, 0, 1)
        check_range("timestep_power", self.timestep_power, 0, 10, open_low=True)
        multiple = self.unshuffle * 2 ** (len(self.channels) - 1)
        for crop in self.crops:
            if crop % multiple:
                raise problem("crops", crop, f"multiples of {multiple} for this network")

    def rate(self, step: int) -> float:
        """Learning rate at ``step``: linear warm-up, plateau, linear fall to zero."""
        rise = min(1.0, (step + 1) / max(1, self.warmup))
        fall = min(1.0, (self.steps - step) / max(1.0, self.cooldown * self.steps))
        return self.learning_rate * rise * fall


def build_unet(config: TrainConfig) -> torch.nn.Module:
    """A stock diffusers ``UNet2DModel``: no attention, so any size costs in proportion to its pixels."""
    from diffusers import UNet2DModel

    depth = len(config.channels)
    plane = config.unshuffle**2
    return UNet2DModel(
        in_channels=plane,
        out_channels=plane,
        block_out_channels=config.channels,
        layers_per_block=config.layers_per_block,
        down_block_types=("DownBlock2D",) * depth,
        up_block_types=("UpBlock2D",) * depth,
        add_attention=False,
        norm_num_groups=16,
        resnet_time_scale_shift="scale_shift",
    )


def start_weights(unet: torch.nn.Module, config: TrainConfig) -> None:
    """Put the weights of the prior ``config.start_from`` into ``unet``; DDFMError when it is another network."""
    from ddfm.priors import load_prior

    prior = load_prior(str(config.start_from))
    ours, theirs = ({name: tuple(p.shape) for name, p in net.named_parameters()} for net in (unet, prior.unet))
    if ours != theirs or prior.unshuffle != config.unshuffle:
        found = f"a network of channels {tuple(prior.unet.config.block_out_channels)}, unshuffle {prior.unshuffle}"
        wanted = f"one of channels {config.channels}, unshuffle {config.unshuffle}"
        raise problem("start_from", f"{str(config.start_from)!r}, {found}", wanted, "Name a prior of these settings.")
    unet.load_state_dict(prior.unet.state_dict())


class PhotographCrops:
    """Random luma crops of the photographs below some folders, as float32 in [-1, 1].

    Held in memory as 8-bit luma. Augmentation: reduction to 0.5-1, flips, quarter turns, contrast and
    brightness, inversion, so that thermal and medical images are not foreign to the model.
    """

    suffixes = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")

    def __init__(self, folders: Sequence[Path], smallest: int = 64) -> None:
        from PIL import Image

        for folder in folders:
            if not folder.is_dir():
                raise problem("DATA", folder, "a folder of photographs")
        paths = sorted(p for f in folders for p in f.rglob("*") if p.suffix.lower() in self.suffixes)
        self.images: list[np.ndarray] = []
        for path in paths:
            try:
                with Image.open(path) as image:
                    luma = np.asarray(image.convert("L"))
            except OSError as error:
                raise problem("DATA", path, "a readable image", str(error)) from error
            if min(luma.shape) >= smallest:
                self.images.append(luma)
        if not self.images:
            raise problem(
                "DATA", [str(f) for f in folders], f"images of {smallest} pixels or more", "Name their folders."
            )

    def batch(self, size: int, rng: np.random.Generator, tone: Sequence[bool]) -> Tensor:
        """Augmented crops, shape (len(tone), 1, size, size); ``tone``: whether the tone of each may be varied."""
        crops = [self._tone(self._crop(size, rng), rng) if varied else self._crop(size, rng) for varied in tone]
        return torch.from_numpy(np.stack(crops))[:, None]

    def _crop(self, size: int, rng: np.random.Generator) -> np.ndarray:
        from PIL import Image

        usable = False
        while not usable:  # an image smaller than the crop is drawn again
            image = self.images[rng.integers(len(self.images))]
            usable = min(image.shape) >= size or all(min(i.shape) < size for i in self.images)
        size_in = size if rng.random() < 0.5 else round(size / rng.uniform(0.5, 1.0))
        size_in = min(size_in, *image.shape)
        top, left = (int(rng.integers(n - size_in + 1)) for n in image.shape)
        patch = image[top : top + size_in, left : left + size_in]
        if size_in != size:
            patch = np.asarray(Image.fromarray(patch).resize((size, size), Image.Resampling.BICUBIC))
        patch = np.rot90(patch, int(rng.integers(4)))
        if rng.random() < 0.5:
            patch = patch[:, ::-1]
        return np.ascontiguousarray(patch, dtype=np.float32) / 127.5 - 1

    @staticmethod
    def _tone(patch: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if rng.random() < 0.5:
            patch = patch * rng.uniform(0.6, 1.2) + rng.uniform(-0.2, 0.2)
        if rng.random() < 0.25:
            patch = -patch
        return np.ascontiguousarray(patch.clip(-1, 1), dtype=np.float32)


def min_snr_weight(abar: Tensor, gamma: float) -> Tensor:
    """Weight of the v loss: min(snr, gamma) / (snr + 1) (Hang et al. 2023, Eq. 6 in v form)."""
    ratio = snr(abar)
    return ratio.clamp(max=gamma) / (ratio + 1)


def relative_weight(abar: Tensor, variance: float = 0.24, size: int = 128) -> Tensor:
    """Weight of the v loss that makes it relative: one over the v loss of a Gaussian prior, so that levels count alike.

    That prior has the spectrum P(f) ~ 1 / |f|^2.5 on ``size`` x ``size``, which fits the training photographs,
    and their ``variance`` in [-1, 1]. Its Wiener filter errs in eps by the mean of
    abar P / (abar P + 1 - abar), in v by 1 / abar times that. Returns the shape of ``abar``.
    """
    f = torch.fft.fftfreq(size, 1 / size, device=abar.device, dtype=abar.dtype)
    square = (f[:, None] ** 2 + f[None] ** 2).clamp(min=0.5)  # the mean's own power is finite
    power = square**-1.25
    power = power * (variance / power.mean())
    wanted = abar[..., None, None]
    return abar / (wanted * power / (wanted * power + 1 - wanted)).mean((-2, -1))


def per_level_loss(
    unet: torch.nn.Module, images: Tensor, timesteps: Sequence[int], unshuffle: int, seed: int = 0
) -> list[float]:
    """Mean squared error of eps at each timestep, on images (N, 1, H, W) in [-1, 1], one noise draw each."""
    levels = alpha_bar(linear_betas())
    losses = []
    for t in timesteps:
        generator = torch.Generator().manual_seed(seed * 1000 + t)
        abar = levels[t].float()
        total = 0.0
        for chunk in images.split(16):
            noise = torch.randn(chunk.shape, generator=generator)
            x_t = add_noise(chunk, noise, abar)
            with torch.inference_mode():
                v = call_network(unet, x_t, t, unshuffle)
            eps = abar.sqrt() * v + (1 - abar).sqrt() * x_t
            total += float((eps - noise).square().mean(dim=(1, 2, 3)).sum())
        losses.append(total / len(images))
    return losses


class Trainer:
    """Trains, checkpoints and exports; everything it needs to go on lies in ``folder``.

    folder/checkpoint.pt   network, EMA, optimiser, step, settings (written whole, then renamed)
    folder/log.jsonl       one line each ``log_every`` steps
    folder/prior/          the result, a DDFMPipeline folder with fp16 weights
    """

    def __init__(self, config: TrainConfig, crops: PhotographCrops, folder: Path, device: str = "cpu") -> None:
        self.config, self.crops, self.folder, self.device = config, crops, folder, device
        torch.manual_seed(config.seed)
        self.unet = build_unet(config).to(device)
        if config.start_from is not None:
            start_weights(self.unet, config)
        self.ema = build_unet(config).to(device)
        self.ema.load_state_dict(self.unet.state_dict())
        self.optimiser = torch.optim.AdamW(self.unet.parameters(), lr=config.learning_rate)
        self.levels = alpha_bar(linear_betas()).float().to(device)
        self.step = 0
        check_export_target(folder / "prior")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise problem("--output", folder, "a folder that can be made", str(error.strerror)) from error

    @property
    def checkpoint(self) -> Path:
        """Where the run's state is kept."""
        return self.folder / "checkpoint.pt"

    def resume(self) -> bool:
        """Load the checkpoint of ``folder`` if there is one; refuse another network's."""
        if not self.checkpoint.exists():
            return False
        try:
            state = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
        except Exception as error:  # torch and pickle raise many kinds for one cause
            raise problem(
                "checkpoint", self.checkpoint, "a whole checkpoint of this command", "Move it away to start anew."
            ) from error
        for key in ("channels", "layers_per_block", "unshuffle"):
            ours, theirs = getattr(self.config, key), state["config"][key]
            if list(np.atleast_1d(ours)) != list(np.atleast_1d(theirs)):
                raise problem(key, ours, f"{theirs} as in {self.checkpoint}", "Give another --output.")
        self.unet.load_state_dict(state["unet"])
        self.ema.load_state_dict(state["ema"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step = state["step"]
        return True

    def save(self) -> None:
        """Write the checkpoint under a temporary name, then rename."""
        state = {
            "unet": self.unet.state_dict(),
            "ema": self.ema.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "config": dataclasses.asdict(self.config),
        }
        part = self.checkpoint.with_suffix(".part")
        torch.save(state, part)
        part.replace(self.checkpoint)

    def run(self, *, log_every: int = 50, save_every: int = 250, on_step: Callable[[dict], None]) -> None:
        """Train to ``config.steps``; a checkpoint is left also when interrupted."""
        try:
            for record in self._steps(log_every):
                if self.step % save_every == 0:
                    self.save()
                on_step(record)
        finally:
            self.save()

    def _steps(self, log_every: int) -> Iterator[dict[str, Any]]:
        losses: list[float] = []
        begun = time.monotonic()
        while self.step < self.config.steps:
            losses.append(self.train_step())
            self.step += 1
            record = {"step": self.step, "loss": losses[-1]}
            if self.step % log_every == 0:
                mean = float(np.mean(losses[-log_every:]))
                seconds = (time.monotonic() - begun) / len(losses)
                record |= {"mean_loss": mean, "seconds_per_step": round(seconds, 4)}
                self._log(record | {"rate": self.config.rate(self.step)})
            yield record

    def _log(self, record: dict[str, Any]) -> None:
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(record) + "\n")

    def train_step(self) -> float:
        """One step on the batch that (seed, step) names; returns the weighted loss."""
        config = self.config
        rng = np.random.default_rng((config.seed, self.step))
        size = int(rng.choice(config.crops))
        count = max(1, round(config.batch_size * 64**2 / size**2))
        uniform = (np.arange(count) + rng.random()) / count  # stratified
        levels = (1000 * uniform**config.timestep_power).astype(np.int64)
        x0 = self.crops.batch(size, rng, (levels < config.tone_below).tolist()).to(self.device)
        t = torch.from_numpy(levels).to(self.device)
        noise = torch.from_numpy(rng.standard_normal(x0.shape, dtype=np.float32)).to(self.device)
        loss = self._loss(x0, noise, t)
        if not bool(loss.isfinite()):
            raise DDFMError(f"learning_rate: the loss became {float(loss.detach())} at step {self.step}. Lower it.")
        return self._update(loss)

    def _loss(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        abar = self.levels[t][:, None, None, None]
        x_t = add_noise(x0, noise, abar)
        target = abar.sqrt() * noise - (1 - abar).sqrt() * x0
        dtype = DTYPES[self.config.dtype]
        kind = torch.device(self.device).type
        amp = torch.autocast(kind, dtype) if dtype != torch.float32 else contextlib.nullcontext()
        with amp:
            v = call_network(self.unet, x_t, t, self.config.unshuffle)
        return (self._weight(abar) * (v.float() - target).square()).mean()

    def _weight(self, abar: Tensor) -> Tensor:
        if self.config.weighting == "min-snr":
            return min_snr_weight(abar, self.config.min_snr_gamma)
        return relative_weight(abar)

    def _update(self, loss: Tensor) -> float:
        for group in self.optimiser.param_groups:
            group["lr"] = self.config.rate(self.step)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.unet.parameters(), 1.0)
        self.optimiser.step()
        # the average starts short and lengthens, or the random start would linger in it
        decay = min(self.config.ema_decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for average, now in zip(self.ema.parameters(), self.unet.parameters(), strict=True):
                average.lerp_(now, 1 - decay)
        return float(loss.detach())


def parse_channels(text: str, argument: str = "channels") -> tuple[int, ...]:
    """ "64,64,96" -> (64, 64, 96); DDFMError unless all are multiples of 16 (the group norms' groups)."""
    parts = text.split(",")
    if not all(part.strip().isdigit() and int(part) > 0 and int(part) % 16 == 0 for part in parts):
        raise problem(argument, repr(text), "multiples of 16, separated by commas, such as 64,64,96,128")
    return tuple(int(part) for part in parts)


def check_export_target(target: Path) -> None:
    """Refuse, before hours of training, to put an export where something else lies. Raises DDFMError."""
    if os.path.lexists(target) and not (target / "card.json").is_file() and (target.is_file() or any(target.iterdir())):
        raise problem("--output", f"{target}, which is not an earlier export", "a free name", "Move it away.")


def check_licence(licence: str) -> str:
    """The statement of what the photographs allow: not empty. Raises DDFMError."""
    if not licence.strip():
        raise problem("--licence", repr(licence), 'a statement such as "CC0" or "not stated"')
    return licence


def _card(name: str) -> dict[str, Any] | None:
    """The model card of a prior, None where it has none: what a later phase of training began with."""
    from ddfm.priors import prior_folder

    file = prior_folder(name) / "card.json"
    return json.loads(file.read_text("utf-8")) if file.is_file() else None


def export(trainer: Trainer, licence: str, folder: Path | None = None) -> Path:
    """Write the averaged network as a prior's folder, fp16, with what is known of it; return the folder.

    Written under a temporary name and then renamed; an earlier export of the same run is replaced.
    """
    import shutil

    from diffusers import DDPMScheduler

    from ddfm.pipeline import DDFMPipeline

    target = folder or trainer.folder / "prior"
    earlier = trainer.config.start_from
    part = target.with_name(target.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    half = copy.deepcopy(trainer.ema).half().cpu()
    scheduler = DDPMScheduler(
        beta_schedule="linear", beta_start=1e-4, beta_end=0.02, prediction_type="v_prediction", clip_sample=False
    )
    DDFMPipeline(half, scheduler, "luma", trainer.config.unshuffle).save_pretrained(part)
    (part / "LICENSE-weights").write_text(licence + "\n", "utf-8")
    card = {
        "steps": trainer.step,
        "photographs": len(trainer.crops.images),
        "settings": dataclasses.asdict(trainer.config) | {"start_from": earlier and Path(str(earlier)).name},
        "started_from": earlier and _card(str(earlier)),
        "sha256": weights_sha256(part),
        "licence": check_licence(licence).strip().splitlines()[0],
    }
    (part / "card.json").write_text(json.dumps(card, indent=1) + "\n", "utf-8")
    for file in part.rglob("*"):  # safetensors are written for the owner alone, which a wheel would keep
        file.chmod(0o755 if file.is_dir() else 0o644)
    check_export_target(target)
    old = target.with_name(target.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.replace(old)  # two renames: an export is on disk at every moment
    part.replace(target)
    shutil.rmtree(old, ignore_errors=True)
    return target
