"""An explanation as one HTML page: nothing is loaded from elsewhere, nothing in it says where it was made."""

from __future__ import annotations

import base64
import copy
import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from ddfm import __version__
from ddfm.explaining import lapse, maps
from ddfm.explaining.charts import chart
from ddfm.explaining.trace import Frame
from ddfm.metrics import METRICS, evaluate
from ddfm.presets import MEDICAL, PRESETS

if TYPE_CHECKING:
    from ddfm.explaining.explanation import Explanation

__all__ = ["SAID", "SCORED_PIXELS", "SCORED_SIDE", "page", "public_report"]

#: Longer side, pixels, of what the page shows beside the fused picture itself.
MOST_SHOWN = 1280
#: Longer side of a frame, of a panel of the GIF in the page, and most frames of that.
FRAME_SIDE, GIF_SIDE, GIF_FRAMES = 800, 320, 24
#: Metrics need so many pixels a side, and above so many pixels take longer than the fusion.
SCORED_SIDE, SCORED_PIXELS = 41, 4_000_000

#: What is shown of ``METRICS``, in words for everyone.
SAID = {
    "EN": "How much varies in the picture, in bits: a flat grey has 0, noise has most.",
    "SD": "Contrast: how far the grey levels spread.",
    "SSIM": "Likeness in structure, summed over both sources: 2 would be equal to both.",
    "Qabf": "Share of the sources' edges that are still there: 1 is all.",
    "VIF": "How much of what an eye takes from each source is kept, summed over both.",
    "minVIF": "VIF with the source that fares worse: a copy of one source scores low here.",
    "SCD": "Whether what was added to one source is the other: up to 2, a copy of one source scores low.",
    "hot": "Contrast of the hot spots of the first source that is kept: 1 is all.",
    "texture": "Fine structure of the last source that is kept: 1 is all.",
}


def page(explanation: Explanation) -> str:
    """The page. The fused picture is in it as the very bytes of its PNG file."""
    environment = Environment(
        loader=PackageLoader("ddfm.explaining"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    folder = files("ddfm.explaining") / "templates"
    style, script = ((folder / name).read_text("utf-8") for name in ("explain.css", "explain.js"))
    report = public_report(explanation)
    return environment.get_template("explain.html.j2").render(
        e=explanation,
        report=report,
        settings=json.dumps(report | {"samples": _samples(explanation)}, indent=1, default=str),
        style=Markup(style),
        script=Markup(script),
        policy=_policy(style, script),
        summary=_summary(explanation, report),
        version=__version__,
        fused=_uri(explanation.fused.encode(".png"), "png"),
        size=explanation.fused.data.shape[:2],
        sources=[_picture(data) for data in explanation.sources],
        cleaned=[_picture(data) for data in explanation.cleaned],
        lapses=list(_lapses(explanation)),
        **_maps(explanation),
        **_charts(explanation),
        uncertainty=_uncertainty(explanation),
        scores=_scores(explanation),
        notes=[*report["warnings"], *explanation.notes],
    )


def _policy(style: str, script: str) -> str:
    """Nothing but what is in the page: its own script and style by their hashes, pictures that it holds."""

    def own(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    rules = f"default-src 'none'; img-src data:; style-src {own(style)}; script-src {own(script)}"
    return f"{rules}; base-uri 'none'; form-action 'none'"


# ---- words ----------------------------------------------------------------------------------------


def public_report(explanation: Explanation) -> dict[str, Any]:
    """The fusion's report with files' names in place of their paths."""
    report = copy.deepcopy(explanation.fused.report)
    paths = [entry["path"] for entry in report["inputs"] if entry["path"]]
    for entry, label in zip(report["inputs"], explanation.labels, strict=True):
        entry["path"] = Path(entry["path"]).name if entry["path"] else None
        entry["label"] = label
    for path in sorted(paths, key=len, reverse=True):
        report["warnings"] = [note.replace(path, Path(path).name) for note in report["warnings"]]
    name = report["prior"]["name"]
    if Path(name).is_absolute() or Path(name).exists():  # a folder; a hub id is a public name
        report["prior"]["name"] = Path(name).name
    return report


def _samples(explanation: Explanation) -> dict[str, Any] | None:
    samples = explanation.samples
    return None if samples is None else {"seeds": list(samples.seeds), "own": samples.own, "settings": samples.settings}


def _summary(explanation: Explanation, report: dict[str, Any]) -> str:
    """What was done, in a sentence or two."""
    preset, settings = report["preset"], report["settings"]
    prior = report["prior"]["name"]
    about = PRESETS[preset.split("@")[0]].summary if preset.split("@")[0] in PRESETS else "settings of one's own"
    cleaned = f" The prior {prior} first took the noise out of the sources." if explanation.cleaned else ""
    if settings["steps"] and not explanation.cleaned:
        calls = f"The prior {prior} was asked {settings['steps']} time{'s' * (settings['steps'] > 1)}."
    else:
        calls = cleaned or "No noise was found or told of, so the prior was not needed."
    return f"Preset {preset}: {about}. {calls.strip()}"


def _followed(explanation: Explanation) -> str:
    """Mean shares, and how much of the picture follows mostly one source, in words."""
    assert explanation.shares is not None
    means = explanation.shares.mean((1, 2))
    parts = [f"{label} has {mean:.0%}" for label, mean in zip(explanation.labels, means, strict=True)]
    mostly = [
        f"{(share > 2 / 3).mean():.0%} of the picture follows mostly {label}"
        for label, share in zip(explanation.labels, explanation.shares, strict=True)
    ]
    return f"On average {_listed(parts)} of the say; {_listed(mostly)}."


def _listed(parts: Sequence[str]) -> str:
    return ", ".join(parts[:-1]) + " and " + parts[-1]


# ---- pictures -------------------------------------------------------------------------------------


def _uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _picture(data: np.ndarray, side: int = MOST_SHOWN, quality: int = 88) -> str:
    """Floats in [0, 1] or uint8 as a WebP picture to be looked at."""
    levels = data if data.dtype == np.uint8 else np.rint(data.clip(0, 1) * 255).astype(np.uint8)
    image = Image.fromarray(levels)
    if max(image.size) > side:
        image = image.resize([max(1, round(s * side / max(image.size))) for s in image.size], Image.Resampling.BOX)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=quality, method=4)
    return _uri(buffer.getvalue(), "webp")


def _lapses(explanation: Explanation) -> Iterator[dict[str, Any]]:
    """The fusion's own frames, and those of the first sample."""
    words = "Left what each step began with (x0), right what the sources made of it (f_hat)."
    yield _lapse("run", "The run, step by step", words, explanation.frames)
    if explanation.samples and explanation.samples.frames:
        words = (
            "The fusion above does not ask the prior about the fused picture. This run does, from a little noise: "
            "left the prior's idea of the picture (x0), right the same after the sources had their say (f_hat)."
        )
        yield _lapse("sample", "What the prior would make of it", words, explanation.samples.frames)


def _lapse(key: str, title: str, words: str, frames: Sequence[Frame]) -> dict[str, Any]:
    quality = 80 if len(frames) <= 20 else 60
    return {
        "key": key,
        "title": title,
        "words": words,
        "frames": [
            {"name": f.name, "x0": _picture(f.x0, FRAME_SIDE, quality), "f_hat": _picture(f.f_hat, FRAME_SIDE, quality)}
            for f in frames
        ],
        "gif": _uri(lapse.gif(lapse.thinned(frames, GIF_FRAMES), GIF_SIDE), "gif"),
    }


def _maps(explanation: Explanation) -> dict[str, Any]:
    """Which source each pixel follows; scale maps, where they are not the same everywhere."""
    shares, scales = explanation.shares, explanation.scale_maps
    uniform = scales is None or float(np.ptp(scales)) == 0
    return {
        "legend": maps.share_legend(explanation.labels),
        "shares": None if shares is None else _picture(maps.share_map(shares)),
        "followed": None if shares is None else _followed(explanation),
        "scales": None if scales is None or uniform else _picture(maps.share_map(scales / len(scales))),
    }


def _charts(explanation: Explanation) -> dict[str, Any]:
    """Objective and energy over sweeps, for each pixel; None where nothing is known of them."""
    if not len(explanation.objective):
        return {"objective": None, "energy": None}
    pixels = explanation.fused.data.shape[0] * explanation.fused.data.shape[1]
    below = "EM iteration"
    return {
        "objective": chart(explanation.objective / pixels, below, "objective, per pixel", joined=False),
        "energy": chart(explanation.energy / pixels, below, "energy, nats per pixel", joined=True),
    }


def _uncertainty(explanation: Explanation) -> dict[str, Any] | None:
    """The map of the spread in grey levels of 255, its legend, and what to say of it."""
    if explanation.spread is None or explanation.samples is None:
        return None
    levels = explanation.spread * 255
    top = maps.spread_top(levels)
    return {
        "map": _picture(maps.spread_map(levels, top)),
        "legend": maps.spread_legend(top),
        "runs": len(explanation.samples.seeds),
        "half": _levels(float(np.median(levels))),
        "most": _levels(float(np.quantile(levels, 0.99))),
    }


def _levels(value: float) -> str:
    return f"{value:.1f}" if value >= 0.05 else "0.1"


def _scores(explanation: Explanation) -> list[dict[str, str]] | str:
    """Rows of the table of metrics, or why there are none."""
    height, width = explanation.fused.data.shape[:2]
    if len(explanation.sources) != 2:
        return "The metrics of the field are for two sources; here are more."
    if min(height, width) < SCORED_SIDE:
        return f"Pictures below {SCORED_SIDE} pixels a side are not scored."
    if height * width > SCORED_PIXELS:
        return "Above 4 megapixels nothing is scored here; ddfm evaluate does it."
    names = [n for n in SAID if not (_is_scan(explanation) and n in ("hot", "texture"))]
    planes = (_grey(data) for data in (explanation.fused.data, *explanation.sources))
    values = evaluate(*planes, metrics=names)
    return [
        {
            "name": name,
            "arrow": METRICS[name].arrow,
            "value": "not defined here" if torch.isnan(values[name]).any() else f"{values[name].item():.3g}",
            "said": SAID[name],
        }
        for name in names
    ]


def _is_scan(explanation: Explanation) -> bool:
    return explanation.fused.report["preset"].split("@")[0] in MEDICAL.values()


def _grey(data: np.ndarray) -> torch.Tensor:
    """(1, 1, H, W), levels on 0..255."""
    luma = data if data.ndim == 2 else data @ np.array((0.299, 0.587, 0.114), np.float32)
    return torch.from_numpy(np.ascontiguousarray(luma.clip(0, 1) * 255, np.float64))[None, None]
