"""A line chart as an SVG element, for a page that brings nothing else along."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

__all__ = ["chart"]

_WIDTH, _HEIGHT = 640, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 12, 12, 44


def chart(pairs: np.ndarray, below: str, beside: str, *, joined: bool) -> Markup:
    """Values (S, 2) before and after each of S sweeps: a stroke for each, and a line through them where ``joined``.

    below, beside: what the axes say.
    """
    low, high = float(pairs.min()), float(pairs.max())
    margin = 0.05 * (high - low) or 1.0
    low, high = low - margin, high + margin
    count = len(pairs)

    def x(sweep: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * sweep / count

    def y(value: float) -> float:
        return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (high - value) / (high - low)

    bottom = _HEIGHT - _BOTTOM
    parts = []
    for value in _ticks(low, high):
        parts.append(_line("grid", _LEFT, y(value), _WIDTH - _RIGHT, y(value)))
        parts.append(_text(_LEFT - 8, y(value) + 4, f"{value:g}", "end"))
    every = max(1, count // 10)
    parts += [_text(x(n), bottom + 18, str(n), "middle") for n in range(0, count + 1, every)]
    parts.append(_line("axis", _LEFT, bottom, _WIDTH - _RIGHT, bottom))
    points = [(x(n + end), y(float(pairs[n, end]))) for n in range(count) for end in (0, 1)]
    if joined:
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
        parts.append(Markup('<polyline class="line" points="{}"/>').format(path))
    else:
        for (a, b), (c, d) in zip(points[::2], points[1::2], strict=True):
            parts.append(_line("line", a, b, c, d))
    if count <= 20:
        parts += [
            Markup('<circle class="{}" cx="{}" cy="{}" r="4"/>').format(kind, f"{a:.1f}", f"{b:.1f}")
            for (a, b), kind in zip(points, ("before", "after") * count, strict=True)
        ]
    parts.append(_text((_LEFT + _WIDTH) / 2, _HEIGHT - 6, below, "middle"))
    middle = (_TOP + bottom) / 2
    turned = Markup('<text transform="translate(14 {}) rotate(-90)" text-anchor="middle">{}</text>')
    parts.append(turned.format(f"{middle:.1f}", beside))
    label = f"{beside} over {below}: from {pairs[0, 0]:.4g} to {pairs[-1, 1]:.4g}"
    frame = Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>')
    return frame.format(_WIDTH, _HEIGHT, label, Markup("").join(parts))


def _ticks(low: float, high: float) -> Sequence[float]:
    """Some four round values between the ends."""
    rough = (high - low) / 4
    unit = 10.0 ** np.floor(np.log10(rough))
    step = next(m * unit for m in (1, 2, 5, 10) if m * unit >= rough)
    first = np.ceil(low / step)
    return [round(float(n * step), 10) + 0.0 for n in np.arange(first, np.floor(high / step) + 1)]


def _line(kind: str, a: float, b: float, c: float, d: float) -> Markup:
    places = (f"{value:.1f}" for value in (a, b, c, d))
    return Markup('<line class="{}" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(kind, *places)


def _text(x: float, y: float, text: str, anchor: str) -> Markup:
    return Markup('<text x="{}" y="{}" text-anchor="{}">{}</text>').format(f"{x:.1f}", f"{y:.1f}", anchor, text)
