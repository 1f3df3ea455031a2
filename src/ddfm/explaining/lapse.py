"""The frames of a run as a film: x0 left, f_hat right, each moment named in the corner."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ddfm._checks import problem
from ddfm.explaining.trace import Frame

__all__ = ["MOST_WIDE", "gif", "mp4", "thinned"]

#: Most pixels of a panel's longer side in a film.
MOST_WIDE = 640
_GAP = 4  # pixels between the panels
_RATE = 5  # frames a second
_FEW = 2  # the same where there are fewer than ten
_REST = 1500  # milliseconds for the last frame


def gif(frames: Sequence[Frame], side: int = MOST_WIDE) -> bytes:
    """An animated GIF that repeats, of panels at most ``side`` pixels a side. Raises DDFMError without frames."""
    pictures = [Image.fromarray(_sheet(frame, side)) for frame in _some(frames)]
    durations = [1000 // _rate(pictures)] * (len(pictures) - 1) + [_REST]
    buffer = io.BytesIO()
    pictures[0].save(
        buffer, "GIF", save_all=True, append_images=pictures[1:], duration=durations, loop=0, optimize=False
    )
    return buffer.getvalue()


def mp4(frames: Sequence[Frame], side: int = MOST_WIDE) -> bytes:
    """The same as H.264, once through. Needs the extra ``video``. Raises DDFMError."""
    from ddfm.io.video_writer import ClipWriter

    sheets = [_even(_sheet(frame, side)) for frame in _some(frames)]
    rate = _rate(sheets)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lapse.mp4"
        size = (sheets[0].shape[0], sheets[0].shape[1])
        with ClipWriter(path, size=size, rate=Fraction(rate), time_base=Fraction(1, 1000), color=False) as writer:
            for n, sheet in enumerate(sheets):
                last = n == len(sheets) - 1
                length = Fraction(_REST, 1000) if last else Fraction(1, rate)
                writer.write(sheet.astype(np.float32) / 255, Fraction(n, rate), length)
        return path.read_bytes()


def thinned(frames: Sequence[Frame], most: int) -> list[Frame]:
    """At most so many of the frames, evenly spread, the first and the last among them."""
    kept = sorted({round(n) for n in np.linspace(0, len(frames) - 1, min(most, len(frames)))})
    return [frames[n] for n in kept]


def _some(frames: Sequence[Frame]) -> Sequence[Frame]:
    if not frames:
        raise problem("frames", "none", "one or more")
    return frames


def _rate(pictures: Sequence[object]) -> int:
    return _RATE if len(pictures) >= 10 else _FEW


def _sheet(frame: Frame, side: int) -> np.ndarray:
    """x0 and f_hat side by side with a gap, the name in the corner, uint8 (H, W)."""
    left, right = (_panel(data, side) for data in (frame.x0, frame.f_hat))
    gap = np.zeros((left.shape[0], _GAP), np.uint8)
    picture = Image.fromarray(np.concatenate([left, gap, right], 1))
    draw, font = ImageDraw.Draw(picture), _font(picture.height)
    _tag(draw, (0, 0), f"{frame.name}: x0", font)
    _tag(draw, (left.shape[1] + _GAP, 0), "f_hat", font)
    return np.asarray(picture)


def _tag(draw: ImageDraw.ImageDraw, corner: tuple[int, int], text: str, font: ImageFont.ImageFont) -> None:
    """White on black, readable over any picture."""
    x, y = corner
    _, _, right, bottom = draw.textbbox((x + 4, y + 2), text, font=font)
    draw.rectangle((x, y, right + 4, bottom + 3), fill=0)
    draw.text((x + 4, y + 2), text, fill=255, font=font)


def _font(height: int) -> ImageFont.ImageFont:
    """Pillow's own; small pictures get small letters."""
    font: ImageFont.ImageFont = ImageFont.load_default(max(9, min(16, height // 14)))  # type: ignore[assignment]
    return font


def _panel(data: np.ndarray, side: int) -> np.ndarray:
    longer = max(data.shape)
    if longer <= side:
        return data
    height, width = (max(1, round(length * side / longer)) for length in data.shape)
    return np.asarray(Image.fromarray(data).resize((width, height), Image.Resampling.BOX))


def _even(sheet: np.ndarray) -> np.ndarray:
    """With even sides, which most players want: the last row and column once more."""
    return np.pad(sheet, [(0, length % 2) for length in sheet.shape], mode="edge")
