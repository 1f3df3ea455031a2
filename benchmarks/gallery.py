"""All pairs side by side with every baseline, as labelled sheets at full size: numbers can be gamed, eyes less so.

PAIRS is a folder of data sets, or one. OUT is an output folder of ``ddfm benchmark``: pictures that it has are used,
the others are made and kept there, so that tables and gallery show the same files, and a stopped gallery goes on where
it was. Written: OUT/gallery/DATASET/ with one PNG for each pair (both sources first), index.html, and with --crops the
surroundings of the clearest hot target and of the strongest visible texture, enlarged. Copies of a source are not
made: they are the sources. Without --methods: baselines, EM alone, and the presets for the kind of picture.

    python benchmarks/gallery.py PAIRS OUT [--methods average,...] [--crops] [--limit N] [--columns 4]
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Template
from PIL import Image, ImageDraw, ImageFont

from _common import check_folder, data_sets, errors_teach, positive, provenance, run_all, write_json
from ddfm._checks import problem
from ddfm.bench.claimed import is_medical
from ddfm.bench.crops import SIDE, window
from ddfm.bench.methods import Method, get_methods
from ddfm.bench.run import Plan
from ddfm.evaluation import read_grey
from ddfm.fusion import FuseConfig
from ddfm.presets import PRESETS

METHODS = ("average", "maximum", "laplacian")
BAR = 22  # pixels of a label
GAP = 4
ENLARGED = 3
SHOWN = ("SD", "Qabf", "SCD", "minVIF", "hot", "texture")

PAGE = Template(
    """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ title }}</title>
<style>body { font: 15px sans-serif; margin: 1em; } img { max-width: 100%; }
td, th { padding: 0 .6em; text-align: right; }</style></head><body>
<h1>{{ title }}</h1>
<p>Grey sources, tone none. Click a sheet for its full size.</p>
{% for link in links %}<p><a href="{{ link | urlencode }}/index.html">{{ link }}</a></p>
{% endfor %}{% for sheet in sheets %}<h2 id="{{ sheet.name }}">{{ sheet.name }}</h2>
{% for file in sheet.files %}<p><a href="{{ file | urlencode }}">
<img loading="lazy" src="{{ file | urlencode }}" alt="{{ file }}"></a></p>
{% endfor %}<table><tr><th></th>{% for m in metrics %}<th>{{ m }}</th>{% endfor %}</tr>
{% for method, row in sheet.rows.items() %}<tr><th>{{ method }}</th>
{% for m in metrics %}<td>{{ row[m] }}</td>{% endfor %}</tr>
{% endfor %}</table>
{% endfor %}</body></html>
""",
    autoescape=True,
)


@dataclasses.dataclass(frozen=True)
class Sheet:
    """One pair on a page: name, files beside the page, and values of each method by metric, as text."""

    name: str
    files: list[str]
    rows: Mapping[str, Mapping[str, str]]


def contact_sheet(pictures: Mapping[str, np.ndarray], columns: int) -> Image.Image:
    """uint8 pictures (H, W) of one size in rows of ``columns``, each below its name, none of them scaled."""
    height, width = next(iter(pictures.values())).shape
    rows = -(-len(pictures) // columns)
    cell = height + BAR + GAP, width + GAP
    sheet = Image.new("L", (columns * cell[1] - GAP, rows * cell[0] - GAP), 255)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    for place, (name, picture) in enumerate(pictures.items()):
        y, x = (n * size for n, size in zip(divmod(place, columns), cell, strict=True))
        draw.text((x + 3, y + 2), name, fill=0, font=font)
        sheet.paste(Image.fromarray(picture), (x, y + BAR))
    return sheet


def read(path: Path) -> np.ndarray:
    """uint8 (H, W)."""
    return read_grey(path)[0, 0].byte().numpy()


def pictures_of(name: str, records: Sequence[dict[str, Any]], out: Path) -> dict[str, np.ndarray]:
    """Both sources, then every method's result of one pair."""
    first = records[0]
    sources = zip(first["dataset"]["roles"], first["sources"][name], strict=True)
    shown = {f"{letter}: {role}": read(Path(path)) for letter, (role, path) in zip("AB", sources, strict=True)}
    return shown | {r["method"]: read(out / r["pictures"] / f"{name}.png") for r in records}


def enlarged(pictures: Mapping[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """Focus -> the same window of every picture, each pixel ENLARGED times as large."""
    a, b = list(pictures.values())[:2]
    return {
        focus: {n: p[y : y + SIDE, x : x + SIDE].repeat(ENLARGED, 0).repeat(ENLARGED, 1) for n, p in pictures.items()}
        for focus, (y, x) in window(a / 255, b / 255).items()
    }


def write_sheets(name: str, records: Sequence[dict[str, Any]], out: Path, folder: Path, options: Any) -> Sheet:
    """The sheets of one pair."""
    pictures = pictures_of(name, records, out)
    sheets = {f"{name}.png": contact_sheet(pictures, options.columns)}
    if options.crops:
        for focus, cut in enlarged(pictures).items():
            sheets[f"{name}-{focus.replace(' ', '-')}.png"] = contact_sheet(cut, options.columns)
    for file, sheet in sheets.items():
        sheet.save(folder / file)
    rows = {r["method"]: {m: value_text(r["images"][name]["values"].get(m)) for m in SHOWN} for r in records}
    return Sheet(name, list(sheets), rows)


def value_text(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def write_folder(dataset: str, records: Sequence[dict[str, Any]], out: Path, options: Any) -> None:
    """All sheets of a data set and its page."""
    folder = out / "gallery" / dataset
    folder.mkdir(parents=True, exist_ok=True)
    sheets = [write_sheets(name, records, out, folder, options) for name in records[0]["images"]]
    page = PAGE.render(title=dataset, sheets=sheets, metrics=SHOWN, links=[])
    (folder / "index.html").write_text(page, "utf-8")
    print(folder / "index.html", flush=True)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", type=Path, help="a data set, or a folder of them")
    parser.add_argument("out", type=Path, help="folder of results, also of earlier ones")
    parser.add_argument("--methods", help="separated by commas, as ddfm benchmark takes them")
    parser.add_argument("--crops", action="store_true", help="also enlarged regions")
    parser.add_argument("--limit", type=positive, help="at most so many pairs of each data set")
    parser.add_argument("--columns", type=positive, default=4)
    parser.add_argument("--prior", default="bundled")
    return parser.parse_args(arguments)


def methods_for(dataset: str, options: argparse.Namespace) -> list[Method]:
    """Those named, or the usual ones for this kind of picture."""
    if options.methods is not None:
        names = [name.strip() for name in options.methods.split(",") if name.strip()]
    elif is_medical(dataset) and "medical" in PRESETS:
        names = [*METHODS, "em-only:medical", *(n for n in ("medical-fast", "medical") if n in PRESETS)]
    else:
        names = [*METHODS, "em-only", "fast", "balanced"]
    if not names:
        raise problem("--methods", "none", "one or more, separated by commas")
    return get_methods(names, FuseConfig(prior=options.prior))


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    with errors_teach("what is finished is in OUT; give the same command again to go on"):
        sets = [(data, methods_for(data.name, options)) for data in data_sets(options.pairs)]
        top = check_folder(options.out) / "gallery"
        failures, shown = 0, {}
        for data, methods in sets:
            records, failed = run_all(methods, [data], options.out, Plan(limit=options.limit))
            failures += failed
            if records:
                write_folder(data.name, records, options.out, options)
                shown[data.name] = [record["method"] for record in records]
                write_top(top, shown)
    sys.exit(2 if not shown else 1 if failures else 0)


def write_top(top: Path, shown: Mapping[str, Sequence[str]]) -> None:
    """The page that leads to every data set's, and what made them."""
    page = PAGE.render(title="Gallery", links=sorted(shown), sheets=[], metrics=[])
    (top / "index.html").write_text(page, "utf-8")
    write_json(top / "gallery.json", {"provenance": provenance(), "methods": shown})
    print(top / "index.html")


if __name__ == "__main__":
    main()
