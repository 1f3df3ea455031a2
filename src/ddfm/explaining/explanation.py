"""One fusion looked at from inside: frames, maps, objective, and what other seeds would have given."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ddfm._checks import check_range, problem
from ddfm.diffusion import alpha_bar, snr
from ddfm.explaining.trace import MOST_FRAMES, Frame, Recorder, Trace, shrinking
from ddfm.fusion import Fused, Fuser, Opened, Settled, fuser_for
from ddfm.io import write_bytes
from ddfm.likelihood import FusionLikelihood
from ddfm.opening import Source
from ddfm.pictures import pair_seed, stretch
from ddfm.presets import Preset
from ddfm.released import ReleasedLikelihood
from ddfm.tiling import starts

__all__ = ["SAMPLE_STEPS", "Explanation", "Samples", "explain", "explain_with"]

#: Network evaluations of each posterior sample, where the preset itself draws nothing at random.
SAMPLE_STEPS = 10
MOST_SEEDS = 1000

OnStep = Callable[[int, int], Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Samples:
    """The runs that the spread is of.

    seeds: of the runs, as ``FuseConfig.seed``. own: whether they are the preset's own runs; else they were sampled with
    ``settings`` in its place, because it gives one picture for every seed. settings: the preset's, plain values.
    frames: of the first run, where it is not the fusion itself.
    """

    seeds: tuple[int, ...]
    own: bool
    settings: dict[str, Any]
    frames: tuple[Frame, ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class Explanation:
    """How a fused picture came about.

    fused: the very picture that ``ddfm.fuse`` gives. labels: of the K sources. sources: float32 in [0, 1], (H, W) or
    (H, W, 3), on the fused grid. cleaned: their lumas (H, W) after the prior took their noise away; () if it did not.
    frames: see ``Frame``. shares (K, H, W): which source each pixel follows, W_k / sum W of the last sweep, sum 1;
    scale_maps (K, H, W): sum K; both None where the likelihood has none. gammas (S, K), objective (S, 2), energy
    (S, 2): see ``Trace``. spread (H, W): standard deviation over seeds of the fused luma in [0, 1], ``samples`` says of
    which runs; both None with fewer than two seeds. notes: what to know of all that.
    """

    fused: Fused
    labels: tuple[str, ...]
    sources: tuple[np.ndarray, ...]
    cleaned: tuple[np.ndarray, ...]
    frames: tuple[Frame, ...]
    shares: np.ndarray | None
    scale_maps: np.ndarray | None
    gammas: np.ndarray
    objective: np.ndarray
    energy: np.ndarray
    spread: np.ndarray | None
    samples: Samples | None
    notes: tuple[str, ...]

    def html(self) -> str:
        """All of it as one page that needs nothing else."""
        from ddfm.explaining.report import page

        return page(self)

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the page; the name ends in .html. Raises DDFMError, also if the file exists."""
        path = check_page(path)
        write_bytes(path, self.html().encode(), overwrite=overwrite)
        return path

    def gif(self) -> bytes:
        """The frames as an animated GIF, x0 and f_hat side by side."""
        from ddfm.explaining.lapse import gif

        return gif(self.frames)

    def mp4(self) -> bytes:
        """The same as an MP4 file; needs the extra ``video``. Raises DDFMError."""
        from ddfm.explaining.lapse import mp4

        return mp4(self.frames)


def check_page(path: str | Path) -> Path:
    """A path whose name ends in .html. Raises DDFMError."""
    path = Path(path)
    if path.suffix.lower() != ".html":
        raise problem("output", repr(path.name), "a name ending in .html", "As in report.html.")
    return path


def explain(
    *sources: Source,
    seeds: int = 8,
    labels: Sequence[str] | None = None,
    on_step: OnStep | None = None,
    **options: Any,
) -> Explanation:
    """Fuse as ``ddfm.fuse`` does, and tell how the result came about.

    sources, options: as there. seeds: how many runs with other noise the uncertainty is taken from, ``seed``, ``seed``
    + 1, ...; 0 or 1: none. labels: names of the sources, by default their files'. on_step(done, of) is called often,
    over all runs; what it raises ends the work at once. Raises DDFMError for anything that cannot be fused, and above
    16 megapixels.
    """
    return explain_with(fuser_for(**options), sources, seeds=seeds, labels=labels, on_step=on_step)


def explain_with(
    fuser: Fuser,
    sources: Sequence[Source],
    *,
    seeds: int = 8,
    labels: Sequence[str] | None = None,
    on_step: OnStep | None = None,
) -> Explanation:
    """``explain`` with a fuser that is loaded already."""
    begun = time.perf_counter()
    if not isinstance(seeds, int) or isinstance(seeds, bool):
        raise problem("seeds", repr(seeds), "a whole number")
    check_range("seeds", seeds, 0, MOST_SEEDS)
    _check_labels(labels, len(sources))
    opened = fuser.open(sources)
    _check_size(fuser, *opened.size)
    images = opened.gathered.images
    ready = fuser.ready(images)
    work = _Work(fuser, ready, seeds, on_step)
    with work.watched():
        trace, luma = _looked_at(fuser, ready, ready.preset, fuser.config.seed, work.tick)
        fused = fuser.result(opened, *fuser.picture(images, ready, luma), time.perf_counter() - begun)
        spread, samples = _spread(fuser, ready, luma, work) if seeds > 1 else (None, None)
    work.finish()
    return Explanation(
        fused=fused,
        labels=tuple(labels) if labels else _labels(opened),
        sources=tuple(image.data for image in images),
        cleaned=tuple(trace.sources) if any(ready.noise) else (),
        frames=trace.frames,
        shares=None if trace.weights is None else _shares(trace.weights),
        scale_maps=trace.scale_maps,
        gammas=trace.gammas,
        objective=trace.objective,
        energy=trace.energy,
        spread=spread,
        samples=samples,
        notes=tuple(_notes(opened.size, ready.preset, trace, samples)),
    )


def _shares(weights: np.ndarray) -> np.ndarray:
    """W_k / sum W."""
    shares: np.ndarray = weights / weights.sum(0)
    return shares


def _check_size(fuser: Fuser, height: int, width: int) -> None:
    if fuser.in_strips(height, width):
        remedy = "Reduce or crop them; ddfm fuse takes them as they are."
        raise problem("sources", f"{width}x{height} pixels", "16 megapixels or fewer to explain", remedy)


def _check_labels(labels: Sequence[str] | None, count: int) -> None:
    if labels is None:
        return
    if isinstance(labels, str) or not all(isinstance(label, str) and label for label in labels):
        raise problem("labels", repr(labels), "a sequence of names")
    if len(labels) != count:
        raise problem("labels", f"{len(labels)} names", f"{count}, one for each source")


def _labels(opened: Opened) -> tuple[str, ...]:
    """File names where there are any and they differ, with the source's number where not."""
    names = [image.path.name if image.path else "" for image in opened.gathered.images]
    labels = [name or f"source {n}" for n, name in enumerate(names, 1)]
    if len(set(labels)) < len(labels):
        labels = [f"{label} ({n})" for n, label in enumerate(labels, 1)]
    return tuple(labels)


# ---- runs -----------------------------------------------------------------------------------------


def _looked_at(
    fuser: Fuser, ready: Settled, preset: Preset, seed: int, tick: Callable[[], Any] = lambda: None
) -> tuple[Trace, Tensor]:
    """One run with a recorder: what it saw, and the fused luma (1, 1, H, W), not clipped."""
    recorder = Recorder(preset.likelihood, moments(preset), _namer(fuser, preset), tick)
    preset = dataclasses.replace(preset, likelihood=recorder)
    luma = fuser.sample(ready.lumas, preset, pair_seed(ready.lumas, seed)).unclipped
    return recorder.trace(), luma


def moments(preset: Preset) -> int:
    """How many frames a run could give: EM's sweeps before the prior, and the sampling steps."""
    return preset.steps + (0 if preset.start is None else preset.warm_sweeps * _sweeps(preset))


def _sweeps(preset: Preset) -> int:
    return preset.likelihood.sweeps if isinstance(preset.likelihood, FusionLikelihood) else 1


def _namer(fuser: Fuser, preset: Preset) -> Callable[[int, float], str]:
    """What a sampling step is called: its timestep is found in the schedule by its snr."""
    levels = snr(alpha_bar(fuser.pipeline.scheduler.betas)).log()

    def name(n: int, level: float) -> str:
        return f"step {n} of {preset.steps}, t = {int((levels - math.log(level)).abs().argmin())}"

    return name


def draws_noise(preset: Preset) -> bool:
    """Whether another seed gives another picture; noise drawn where a source's own was clipped does not count."""
    return preset.steps > 0 and (preset.start is None or preset.start_noise > 0 or preset.sampler == "ddpm")


def _spread(fuser: Fuser, ready: Settled, luma: Tensor, work: _Work) -> tuple[np.ndarray, Samples]:
    """Standard deviation (H, W) over seeds of the luma in [0, 1], and of which runs; ``luma``: the fusion's."""
    preset, own = work.sampled, work.own
    frames: tuple[Frame, ...] = ()
    seeds = tuple(fuser.config.seed + n for n in range(work.seeds))
    total = square = np.zeros(luma.shape[-2:])
    first: np.ndarray | None = None
    for n, seed in enumerate(seeds):
        if n == 0 and not own:
            trace, luma = _looked_at(fuser, ready, preset, seed)
            frames = trace.frames
        elif n:
            luma = fuser.sample(ready.lumas, preset, pair_seed(ready.lumas, seed)).unclipped
        value = stretch(luma, fuser.tone)[0, 0].double().numpy()
        first = value if first is None else first
        total, square = total + (value - first), square + (value - first) ** 2  # from the first: nothing cancels
    mean = total / len(seeds)
    variance = (square / len(seeds) - mean**2).clip(min=0) * len(seeds) / (len(seeds) - 1)
    return np.sqrt(variance).astype(np.float32), Samples(seeds, own, preset.settings(), frames)


class _Work:
    """How much there is to do, and how much is done: sweeps of the fusion, and calls of the network in all runs."""

    def __init__(self, fuser: Fuser, ready: Settled, seeds: int, on_step: OnStep | None) -> None:
        preset = ready.preset
        self.seeds, self._unet, self._on_step = seeds, fuser.pipeline.unet, on_step
        self.own = draws_noise(preset)
        self.sampled = preset if self.own else preset.with_steps(SAMPLE_STEPS)
        cleaning = preset.draws * sum(value > 0 for value in ready.noise)
        runs = 0 if seeds < 2 else seeds - self.own
        evaluations = cleaning + preset.steps + runs * (cleaning + self.sampled.steps)
        sweeps = (preset.steps + (0 if preset.start is None else preset.warm_sweeps)) * _sweeps(preset)
        self.of = sweeps + evaluations * self._calls(fuser, *ready.lumas[0].shape[-2:])
        self.done = 0
        self._thread = threading.get_ident()

    @staticmethod
    def _calls(fuser: Fuser, height: int, width: int) -> int:
        """Of the network, for one evaluation."""
        tile, multiple = fuser._tile(height, width), fuser.pipeline.multiple
        if not tile:
            return 1
        sides = (-(-length // multiple) * multiple for length in (height, width))
        rows, columns = (len(starts(side, tile, tile // 4, multiple)) for side in sides)
        return rows * columns

    def tick(self) -> None:
        """One more is done."""
        self.done = min(self.done + 1, self.of)
        self._tell()

    def finish(self) -> None:
        """All is done."""
        self.done = self.of
        self._tell()

    def _tell(self) -> None:
        if self._on_step:
            self._on_step(self.done, self.of)

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Each of this thread's calls of the network ticks."""

        def called(*_: Any) -> None:
            if threading.get_ident() == self._thread:
                self.tick()

        self._tell()
        handle = self._unet.register_forward_hook(called)
        try:
            yield
        finally:
            handle.remove()


def _notes(size: tuple[int, int], preset: Preset, trace: Trace, samples: Samples | None) -> Iterator[str]:
    """What a reader should know of the explanation itself."""
    factor = shrinking(*size)
    if factor > 1:
        yield f"the picture is large: frames of the time-lapse are kept at 1/{factor} of its sides"
    if moments(preset) > MOST_FRAMES:
        yield f"{len(trace.frames)} of {moments(preset)} moments are kept, evenly spread"
    if isinstance(preset.likelihood, ReleasedLikelihood):
        yield "the authors' released code has no objective that its steps lower, so none is shown"
    elif trace.weights is None:
        yield f"{type(preset.likelihood).__name__} has no weights: there is no map of what each pixel follows"
    if samples and not samples.own:
        yield (
            f"{preset.name} draws nothing at random here: every seed gives the same picture. The uncertainty is that "
            f"of posterior sampling with {SAMPLE_STEPS} network evaluations on the same sources instead"
        )
