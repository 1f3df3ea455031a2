"""``ddfm explain``: one fusion with a page that shows how it came about."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ddfm.cli._preparing import Align
from ddfm.cli._shared import Device, Overwrite, PresetOption, PriorOption, Seed, Steps, progress_bar, say
from ddfm.cli.fuse import NoiseStd, Tone

if TYPE_CHECKING:
    from ddfm.config import FuseConfig
    from ddfm.explaining import Explanation

__all__ = ["explain"]

Sources = Annotated[
    list[Path],
    typer.Argument(metavar="SOURCE", help="IR VIS, or more: pictures of one scene.", show_default=False),
]
Output = Annotated[Path, typer.Option("--output", "-o", help="Page to write, .html.", show_default=False)]
Seeds = Annotated[
    int, typer.Option("--seeds", min=0, max=1000, help="Runs with other noise that show how sure it is; 0 or 1: none.")
]
Gif = Annotated[Path | None, typer.Option("--gif", help="Also write the time-lapse as an animated GIF.")]
Mp4 = Annotated[Path | None, typer.Option("--mp4", help="Also write it as a video; needs the extra video.")]


def explain(
    sources: Sources,
    output: Output,
    preset: PresetOption = "balanced",
    prior: PriorOption = "bundled",
    steps: Steps = None,
    seed: Seed = 0,
    seeds: Seeds = 8,
    noise_std: NoiseStd = None,
    align: Align = "none",
    tone: Tone = None,
    device: Device = "auto",
    gif: Gif = None,
    mp4: Mp4 = None,
    overwrite: Overwrite = False,
) -> None:
    """Fuse two or more pictures of one scene, and show on one page how the result came about and how sure it is.

    The page is a single file that opens in any browser, offline. The picture in it is the one that ddfm fuse gives.
    """
    from ddfm.config import FuseConfig

    config = FuseConfig(
        preset=preset,
        prior=prior,
        steps=steps,
        seed=seed,
        device=device,
        tone=tone,
        noise_std=noise_std,
        align=align,
    )
    outputs = {".html": output, ".gif": gif, ".mp4": mp4}
    _check(sources, {suffix: path for suffix, path in outputs.items() if path}, config, overwrite)
    explanation = _explain(sources, config, seeds)
    for note in (*explanation.fused.report["warnings"], *explanation.notes):
        say(f"note: {note}", "yellow")
    _write(explanation, output, gif, mp4, overwrite)


def _check(sources: Sequence[Path], outputs: dict[str, Path], config: FuseConfig, overwrite: bool) -> None:
    """Refuse what can be known to fail before the prior is loaded. Raises DDFMError."""
    from ddfm import engine
    from ddfm._checks import problem

    _check_sources(sources)
    config.check_count(len(sources))
    for suffix, path in outputs.items():
        if path.suffix.lower() != suffix:
            option = "--output" if suffix == ".html" else f"--{suffix[1:]}"
            raise problem(option, repr(path.name), f"a name ending in {suffix}")
        if path.is_dir():
            raise problem(str(path), "a folder", "a file name", "Name a file in it.")
        if not path.absolute().parent.is_dir():
            raise problem(str(path), "no such folder", "a file in an existing folder", f"mkdir -p {path.parent}")
        engine.check_free(path, overwrite)
        engine.check_writable([engine.Job(tuple(sources), path)])
    if ".mp4" in outputs:
        from ddfm.io.video import import_av

        import_av()
    config.resolve()


def _check_sources(sources: Sequence[Path]) -> None:
    """Two or more files that may be pictures. Raises DDFMError."""
    from ddfm import engine
    from ddfm._checks import problem
    from ddfm.io.medical import is_volume
    from ddfm.io.video import is_video

    for path in sources:
        one = "Give one picture of each: ddfm explain IR VIS -o report.html."
        if path.is_dir():
            raise problem(str(path), "a folder", "a picture", one)
        if is_video(path):
            raise problem(str(path), "a video", "a picture", f"Take a frame out of it. {one}")
        if is_volume(path):
            raise problem(str(path), "a volume", "a picture", f"Export a slice of it. {one}")
    if len(sources) < 2:
        raise problem("sources", "one file", "two or more pictures of one scene")
    engine.kind_of(sources)  # missing ones, pipes, manifests


def _explain(sources: Sequence[Path], config: FuseConfig, seeds: int) -> Explanation:
    """The work, with a progress bar. Raises DDFMError."""
    from ddfm._checks import explained
    from ddfm.explaining import explain_with
    from ddfm.fusion import Fuser

    with progress_bar() as progress:
        task = progress.add_task("loading the prior", total=None)

        def on_step(done: int, of: int) -> None:
            progress.update(task, description="fusing and looking on", completed=done, total=of)

        try:
            return explain_with(Fuser(config), sources, seeds=seeds, on_step=on_step)
        except (MemoryError, RuntimeError) as error:
            raise explained(error, "sources", "pictures that fit", "Reduce them.") from error


def _write(explanation: Explanation, output: Path, gif: Path | None, mp4: Path | None, overwrite: bool) -> None:
    """All files, made before the first is written; the names of what there is now. Raises DDFMError."""
    from ddfm.io import write_bytes

    contents = {output: explanation.html().encode()}
    contents |= {gif: explanation.gif()} if gif else {}
    contents |= {mp4: explanation.mp4()} if mp4 else {}
    for path, content in contents.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, content, overwrite=overwrite)
        typer.echo(path)
