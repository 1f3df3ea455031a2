"""``ddfm data``: where the public data sets come from, what is wrong with a copy of one, and rendered volumes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ddfm.cli._shared import Overwrite, Seed, progress_bar, say

__all__ = ["data_app"]

data_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Public data sets: where from, and checks.")


@data_app.command("list")
def data_list(
    root: Annotated[
        Path | None, typer.Argument(help="A folder with data sets in it: says which are there.", show_default=False)
    ] = None,
) -> None:
    """Say which data sets are known, where each comes from, which layouts are understood, what is there or missing."""
    from ddfm._checks import DDFMError, problem
    from ddfm.datasets import DATASETS, find_known

    if root is not None and not root.is_dir():
        raise problem(str(root), "no such folder", "a folder that holds data sets, each in a folder of its name")
    for name, known in DATASETS.items():
        typer.echo(f"{name}: {known.what}")
        typer.echo(f"  from     {known.source}  ({known.terms})")
        layouts = [f"{a} + {b}" for a, b in known.layouts[:3]] + [f"{a}_* + {b}_*" for a, b in known.prefixes[:1]]
        typer.echo(f"  layouts  {'; '.join(layouts)}")
        if root is not None:
            found = find_known(root, name)
            if found is None:
                state = f"missing: put it into {root / name}"
            elif isinstance(found[1], DDFMError):
                state = f"not understood: {found[1]}"
            else:
                state = f"{len(found[1].pairs)} pairs in {found[0]}"
            typer.echo(f"  here     {state}")
    typer.echo(
        "any other: a folder with ir + vi (or infrared + visible, ct + mri, pet + mri, spect + mri), equal names"
    )


@data_app.command("check")
def data_check(
    root: Annotated[Path, typer.Argument(help="A data set's folder.", show_default=False)],
    known: Annotated[str | None, typer.Option("--dataset", help="Its name, if the layout does not tell.")] = None,
) -> None:
    """Verify pairs, sizes, duplicates and roles; exit code 1 if something was found."""
    from ddfm._checks import check_choice
    from ddfm.datasets import DATASETS, check_pairs, find_pairs

    if known:
        check_choice("--dataset", known, tuple(DATASETS))
    data = find_pairs(root, known)
    with progress_bar() as progress:
        task = progress.add_task("reading", total=len(data.pairs))
        findings = check_pairs(data, on_pair=lambda name: progress.update(task, advance=1, description=name))
    for finding in findings:
        typer.echo(f"{finding.kind}: {', '.join(finding.names)}: {finding.text}")
    for note in data.notes:
        say(f"note: {note}", "yellow")
    say(f"{len(data.pairs)} pairs, {' + '.join(data.roles)}; {len(findings)} findings")
    raise typer.Exit(1 if findings else 0)


@data_app.command("phantom")
def data_phantom(
    folder: Annotated[Path, typer.Argument(help="Where to leave the volumes.")] = Path("phantom"),
    modality: Annotated[str, typer.Option("--modality", help="ct, pet or spect, beside the MRI.")] = "ct",
    slices: Annotated[int, typer.Option("--slices", min=2, help="How many.")] = 24,
    size: Annotated[int, typer.Option("--size", min=16, help="Rows and columns of a slice.")] = 128,
    seed: Seed = 0,
    overwrite: Overwrite = False,
) -> None:
    """Render a head with known truth and write it as NIfTI files and as DICOM series, to try volumes on."""
    from ddfm.demo import make_phantom

    for path in make_phantom(folder, modality, slices, size, seed, overwrite=overwrite):
        typer.echo(path)
