"""``ddfm evaluate``, ``benchmark``, ``report``, ``ablate``, ``sweep``: how good is it?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ddfm.cli._shared import Device, Overwrite, PriorOption, Seed, Steps, progress_bar, say

if TYPE_CHECKING:
    from ddfm.bench.methods import Method
    from ddfm.bench.run import Plan
    from ddfm.datasets import PairedData

__all__ = ["ablate", "benchmark", "evaluate", "report", "sweep"]

Convention = Annotated[
    str, typer.Option("--convention", help="paper: as fusion papers print; standard: bits, range 255, means.")
]
Metrics = Annotated[str, typer.Option("--metrics", help="Names separated by commas; or default, six, all.")]
Roots = Annotated[
    list[Path], typer.Argument(help="Data sets: folders with ir + vi, or as published.", show_default=False)
]
Runs = Annotated[Path, typer.Option("--output", "-o", help="Folder of the results, also of earlier ones.")]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="At most so many pairs of each data set.")]


def evaluate(
    infrared: Annotated[Path, typer.Argument(help="Folder of the infrared (CT, PET, SPECT).", show_default=False)],
    visible: Annotated[Path, typer.Argument(help="Folder of the visible (MRI).", show_default=False)],
    fused: Annotated[
        list[str], typer.Argument(help="Folder of fused images, or several, or NAME=FOLDER.", show_default=False)
    ],
    convention: Convention = "paper",
    metrics: Metrics = "default",
    output: Annotated[
        list[Path] | None,
        typer.Option("--output", "-o", help="Also write .csv (per image), .json, .md or .tex; may be given again."),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Score fused images of any method against their sources, paired by file stem."""
    from ddfm import evaluation
    from ddfm.datasets import PairedData
    from ddfm.metrics import parse_names
    from ddfm.metrics.statistics import check_convention
    from ddfm.tables import to_text

    check_convention(convention)
    names = parse_names(metrics)
    files = output or []
    _check_files(files, overwrite)
    data = PairedData.from_folders(infrared, visible)
    folders = [_named(text) for text in fused]
    _check_names(folders)
    with progress_bar() as progress:
        task = progress.add_task("scoring", total=len(data.pairs) * len(folders))
        found = [
            evaluation.evaluate_folder(
                data,
                folder,
                name=name,
                convention=convention,
                metrics=names,
                on_image=lambda stem: progress.update(task, advance=1, description=stem),
            )
            for name, folder in folders
        ]
    counts = ", ".join(f"{e.name} {len(e.images)}" for e in found)
    title = f"{infrared} + {visible}: means, images: {counts}"
    for e in found if len(found) == 1 else []:
        typer.echo(to_text(evaluation.image_table(e)))
    typer.echo(to_text(evaluation.mean_table(title, found)))
    for file in files:
        _write_scores(file, title, found, overwrite)


def _check_names(folders: Sequence[tuple[str, Path]]) -> None:
    from ddfm._checks import problem

    names = [name or folder.resolve().name for name, folder in folders]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise problem("FUSED", f"several folders named {', '.join(doubled)}", "a name for each", "Give NAME=FOLDER.")


def _named(text: str) -> tuple[str, Path]:
    """NAME=FOLDER, or a folder under its own name."""
    name, equals, folder = text.partition("=")
    return (name, Path(folder)) if equals and not Path(text).exists() else ("", Path(text))


_SCORES = (".csv", ".json", ".md", ".tex")


def _check_files(files: Sequence[Path], overwrite: bool) -> None:
    import tempfile

    from ddfm._checks import problem

    for file in files:
        if file.suffix not in _SCORES:
            raise problem("--output", repr(str(file)), f"a name ending in {', '.join(_SCORES)}")
        if file.exists() and not overwrite:
            raise problem("--output", f"{file}, which exists", "a new name", "Allow it with --overwrite.")
        if not file.parent.is_dir():
            raise problem("--output", file, "a file in an existing folder", f"Create it: mkdir -p {file.parent}")
        try:
            with tempfile.TemporaryFile(dir=file.parent):
                pass
        except OSError as error:
            raise problem("--output", f"{file.parent} ({error.strerror})", "a folder that can be written to") from error


def _write_scores(file: Path, title: str, found: Any, overwrite: bool) -> None:
    import json

    from ddfm import evaluation, tables
    from ddfm.io import write_bytes

    makers: dict[str, Callable[[], str]] = {
        ".csv": lambda: evaluation.per_image_csv(found),
        ".json": lambda: json.dumps(evaluation.to_json(title, found), indent=1) + "\n",
        ".md": lambda: tables.to_markdown(evaluation.mean_table(title, found)),
        ".tex": lambda: tables.to_latex(evaluation.mean_table(title, found)),
    }
    write_bytes(file, makers[file.suffix]().encode(), overwrite=overwrite)
    say(f"wrote {file}")


_METHODS = "average,maximum,laplacian,copy-A,copy-B,em-only,fast,balanced"


def benchmark(
    roots: Roots,
    output: Runs = Path("benchmark"),
    method: Annotated[
        str,
        typer.Option("--method", "-m", help="Separated by commas: a baseline, em-only, a preset, NAME=FOLDER."),
    ] = _METHODS,
    convention: Convention = "paper",
    metrics: Metrics = "default",
    limit: Limit = None,
    prior: PriorOption = "bundled",
    steps: Steps = None,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Run methods on data sets; one JSON for each, what is there already is not run again. Then: ddfm report."""
    from ddfm.bench.methods import get_methods
    from ddfm.fusion import FuseConfig

    config = FuseConfig(prior=prior, steps=steps, seed=seed, device=device)
    methods = get_methods([name.strip() for name in method.split(",") if name.strip()], config)
    raise typer.Exit(_run(methods, roots, output, _plan(convention, metrics, limit))[0])


def _plan(convention: str, metrics: str, limit: int | None) -> Plan:
    from ddfm.bench.run import Plan
    from ddfm.metrics import parse_names
    from ddfm.metrics.statistics import check_convention

    return Plan(check_convention(convention), parse_names(metrics), limit)


def _run(
    methods: Sequence[Method], roots: Sequence[Path], output: Path, plan: Plan
) -> tuple[int, list[dict[str, Any]]]:
    """Exit code, and the records of this command's runs, new or kept."""
    from ddfm._checks import problem
    from ddfm.bench.run import Failure
    from ddfm.bench.run import benchmark as run

    if not methods:
        raise problem("--method", "none", "one or more, separated by commas")
    sets = _sets(roots)
    count = sum(len(plan.pairs(data).pairs) for data in sets) * len(methods)
    records: list[dict[str, Any]] = []
    failures = []
    with progress_bar() as progress:
        task = progress.add_task("", total=count)

        def on_image(dataset: str, method: str, stem: str) -> None:
            progress.update(task, advance=1, description=f"{dataset} {method} {stem}")

        try:
            for outcome in run(methods, sets, output, plan, on_image):
                if isinstance(outcome, Failure):
                    failures.append(outcome)
                    continue
                records.append(outcome[1])
                progress.console.print(outcome[0], soft_wrap=True)
        except KeyboardInterrupt:
            total = len(methods) * len(sets)
            say(f"stopped after {len(records)} of {total}; give the same command again to go on", "yellow")
            return 130, records
    for failure in failures:
        say(f"error: {failure.dataset}, {failure.method}: {failure.reason}", "red")
    typer.echo(f"{len(records)} results in {output / 'runs'}")
    return (0 if not failures else 1 if records else 2), records


def _sets(roots: Sequence[Path]) -> list[PairedData]:
    from ddfm._checks import problem
    from ddfm.datasets import find_pairs

    sets = [find_pairs(root) for root in roots]
    for data in sets:
        for note in data.notes:
            say(f"note: {note}", "yellow")
        for path in data.unmatched:
            say(f"warning: {path} has no partner and is left out", "yellow")
    names = [data.name for data in sets]
    if len(set(names)) < len(names):
        raise problem("data sets", f"names {', '.join(names)}", "folders of different names")
    return sets


def report(
    runs: Annotated[Path, typer.Argument(help="Output folder of ddfm benchmark.", show_default=False)],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder.  [default: RUNS/report]")] = None,
    reference: Annotated[
        str | None, typer.Option(help="Method that the others are tested against.  [default: balanced, if there]")
    ] = None,
    rows: Annotated[
        Path | None,
        typer.Option(help="JSON of rows measured elsewhere: {rows: {data set: {method: {metric: value}}}}."),
    ] = None,
) -> None:
    """Tables beside the paper's, charts, significance and a page with crops, from the results alone."""
    from ddfm.bench.report import write_report

    for path in write_report(runs, output or runs / "report", reference, rows):
        typer.echo(path)


def ablate(
    roots: Roots,
    output: Runs = Path("ablation"),
    preset: Annotated[
        str, typer.Option("--preset", help="What is ablated; the paper's Table 2 is of paper.")
    ] = "paper",
    convention: Convention = "paper",
    metrics: Metrics = "default",
    limit: Limit = None,
    prior: PriorOption = "bundled",
    steps: Steps = None,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Table 2: I no diffusion, II no TV, III and IV no Bayesian inference (phi = 0.1, 1), and the full method."""
    from ddfm.bench.methods import ablations
    from ddfm.bench.report import ablation_tables
    from ddfm.fusion import FuseConfig
    from ddfm.tables import to_text

    config = FuseConfig(preset=preset, prior=prior, steps=steps, seed=seed, device=device)
    code, runs = _run(ablations(config.resolve(), config), roots, output, _plan(convention, metrics, limit))
    if code == 0:
        for table in ablation_tables(runs, output):
            typer.echo(to_text(table))
    raise typer.Exit(code)


def sweep(
    roots: Roots,
    output: Runs = Path("sweep"),
    preset: Annotated[str, typer.Option("--preset", help="Whose psi and eta are varied.")] = "balanced",
    psi: Annotated[str, typer.Option(help="Values, separated by commas.")] = "0.05,0.1,0.5,1,5",
    eta: Annotated[str, typer.Option(help="Values, separated by commas.")] = "0.01,0.05,0.1,0.5,1",
    convention: Convention = "paper",
    metrics: Metrics = "default",
    limit: Limit = None,
    prior: PriorOption = "bundled",
    steps: Steps = None,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """The psi x eta grid of the paper's supplement, as heat maps in OUTPUT/heatmaps."""
    from ddfm.bench.methods import grid
    from ddfm.bench.report import write_heatmaps
    from ddfm.fusion import FuseConfig

    config = FuseConfig(preset=preset, prior=prior, steps=steps, seed=seed, device=device)
    methods = grid(config.resolve(), _numbers("--psi", psi), _numbers("--eta", eta), config)
    code, runs = _run(methods, roots, output, _plan(convention, metrics, limit))
    for path in write_heatmaps(runs, output) if code == 0 else []:
        typer.echo(path)
    raise typer.Exit(code)


def _numbers(argument: str, text: str) -> list[float]:
    from ddfm._checks import problem

    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        raise problem(argument, repr(text), "numbers separated by commas, such as 0.1,0.5,1") from None
    return sorted(set(values))
