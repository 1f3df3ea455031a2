"""``ddfm fuse`` for volumes: NIfTI files, DICOM files and folders with a DICOM series."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ddfm.cli._shared import progress_bar, say

if TYPE_CHECKING:
    from ddfm.fusion import FuseConfig
    from ddfm.io.volume import Volume

__all__ = ["KeepPatient", "Options", "Resample", "Series", "Window", "fuse", "wanted"]

Window = Annotated[
    str | None,
    typer.Option(
        "--window",
        help="Volumes: values to show, CENTER:WIDTH, file or auto; one, or one a source, by commas.  [default: file]",
    ),
]
Series = Annotated[
    str | None,
    typer.Option(
        "--series", help="Volumes: SeriesInstanceUID to take from a folder of several; one a source by commas."
    ),
]
Resample = Annotated[
    bool, typer.Option("--resample", help="Volumes: put the others onto the last one's grid, by their headers.")
]
KeepPatient = Annotated[
    bool,
    typer.Option("--keep-patient", help="Volumes: copy the last source's patient and study into the DICOM output."),
]
#: For volumes, unless the user names one.
PRESET = "medical"


@dataclasses.dataclass(frozen=True)
class Options:
    """What counts for volumes only."""

    window: str | None = None
    series: str | None = None
    resample: bool = False
    keep_patient: bool = False


def wanted(sources: Sequence[Path], options: Options) -> bool:
    """Whether the sources are volumes. Raises DDFMError for a mixture, and for a volume's options with pictures."""
    from ddfm._checks import problem
    from ddfm.io.medical import is_volume

    volumes = [is_volume(path) for path in sources]
    for path in sources if any(volumes) else ():
        if not path.exists():
            raise problem(str(path), "no such file or folder", "a volume (NIfTI, DICOM)", "Check the path.")
    if any(volumes) and not all(volumes):
        got = f"{sources[volumes.index(True)]}, a volume, and {sources[volumes.index(False)]}, which is none"
        raise problem("sources", got, "all volumes (NIfTI, DICOM) or all pictures", "Check the paths.")
    if not any(volumes):
        for name, value in dataclasses.asdict(options).items():
            if value:
                raise problem("--" + name.replace("_", "-"), "with pictures", "NIfTI or DICOM sources")
    return any(volumes)


def fuse(
    sources: Sequence[Path],
    output: Path,
    config: FuseConfig,
    options: Options,
    given: Collection[str],
    *,
    overwrite: bool,
    report: Path | None,
) -> int:
    """Fuse with a progress bar over the slices, write the report, say what came out; the exit code.

    given: names of the parameters that the user typed.
    """
    from ddfm import journal
    from ddfm._checks import explained
    from ddfm.volumes import open_volumes, parse_windows

    config = _settled(config, given)
    windows = parse_windows(options.window, len(sources))
    if report:
        _check_report(report, sources, output)
    volumes = open_volumes(sources, options.series)
    try:
        record = _run(volumes, output, config, options, windows, overwrite)
    except KeyboardInterrupt:
        say("stopped; nothing was written", "yellow")
        return 130
    except (MemoryError, RuntimeError) as error:
        remedy = "Crop them, or let the network see less of a slice at once: --tile 256."
        raise explained(error, "sources", "volumes that fit", remedy) from error
    for note in record["warnings"]:
        say(f"warning: {note}", "yellow")
    if report:
        journal.append_record(report, record)
    typer.echo(f"{output}  ({record['slices']} slices, {record['seconds']} s, {record['preset']}; {record['label']})")
    return 0


#: Options for pictures, and what volumes have instead.
_INSTEAD = {
    "align": "--resample, by the positions in their headers",
    "transform": "--resample, by the positions in their headers",
    "save_transform": "positions in their headers",
    "checkerboard": "positions in their headers",
    "value_range": "--window",
    "clahe": "--window",
}


def _check_report(report: Path, sources: Sequence[Path], output: Path) -> None:
    """Refuse, before any work, a report that would be put into a source or into the result. Raises DDFMError."""
    from ddfm import engine
    from ddfm._checks import problem
    from ddfm.io.medical import is_read

    if report.resolve() == output.resolve():
        raise problem("--report", f"{report}, which is the output", "a file of its own", "End it in .jsonl.")
    if report.exists() and any(is_read(report, source) for source in sources if source.is_file()):
        raise problem("--report", f"{report}, which is a source", "a file of its own", "End it in .jsonl.")
    engine.check_report(report)


def _settled(config: FuseConfig, given: Collection[str]) -> FuseConfig:
    """The settings for volumes, checked. Raises DDFMError for options that are for pictures."""
    from ddfm._checks import problem

    for name in ("pattern", "recursive", "columns", "skip_unmatched", "name", "suffix"):
        if name in given:
            raise problem("--" + name.replace("_", "-"), "with volumes", "folders of pictures", "Leave it out.")
    for name, instead in _INSTEAD.items():
        if name in given:
            option = "--" + name.replace("_", "-").removeprefix("value-")
            raise problem(option, "with volumes", "pictures", f"Volumes have {instead}.")
    if "preset" not in given:
        config = dataclasses.replace(config, preset=PRESET)
        say(f"note: volumes are fused with --preset {PRESET} unless another one is given")
    config.resolve()
    return config


def _run(
    volumes: Sequence[Volume],
    output: Path,
    config: FuseConfig,
    options: Options,
    windows: Sequence[tuple[float, float] | str],
    overwrite: bool,
) -> dict[str, Any]:
    """The report of the fusion, with a progress bar."""
    from ddfm.fusion import Fuser
    from ddfm.volumes import fuse_volumes

    with progress_bar() as progress:
        task = progress.add_task("slices", total=volumes[-1].geometry.shape[2])
        return fuse_volumes(
            volumes,
            output,
            Fuser(config),
            windows=windows,
            resample=options.resample,
            keep_patient=options.keep_patient,
            overwrite=overwrite,
            on_slice=lambda done, of: progress.update(task, completed=done),
        )
