"""Pictures of docs/align.md and docs/radiometric.md, from rendered samples.

python benchmarks/preparing.py [--out docs/img]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from _common import check_folder, errors_teach
from ddfm import samples
from ddfm.fusion import FuseConfig, Fused, Fuser

#: What the infrared camera sees of the visible picture, which it shows on half as many rows and columns.
TOP, LEFT, HEIGHT, WIDTH = 14, 30, 288, 384
TILE = (440, 320)


def two_cameras() -> tuple[np.ndarray, np.ndarray]:
    """A small thermal picture of a part of the field, and a large visible one."""
    scene = samples.street((320, 440), 0)
    part = scene.infrared[TOP : TOP + HEIGHT, LEFT : LEFT + WIDTH]
    small = Image.fromarray(part).resize((WIDTH // 2, HEIGHT // 2), Image.Resampling.BOX)
    return np.clip(np.asarray(small), 0, 1), scene.visible


def sheet(pictures: dict[str, np.ndarray], columns: int = 2) -> Image.Image:
    """Pictures float (H, W) or (H, W, 3) in [0, 1] under their names, in rows."""
    width, height = TILE
    rows = -(-len(pictures) // columns)
    page = Image.new("RGB", (columns * (width + 8) - 8, rows * (height + 26)), "white")
    draw = ImageDraw.Draw(page)
    for n, (name, data) in enumerate(pictures.items()):
        left, top = n % columns * (width + 8), n // columns * (height + 26)
        image = Image.fromarray(np.rint(np.clip(data, 0, 1) * 255).astype(np.uint8)).convert("RGB")
        page.paste(image, (left, top + 24))
        draw.text((left + 4, top + 4), name, fill="black", font_size=15)
    return page


def alignment() -> Image.Image:
    """Sources, checkerboards and fusions after a mere resize and after an affine estimate."""
    thermal, visible = two_cameras()
    done: dict[str, Fused] = {
        kind: Fuser(FuseConfig(align=kind)).fuse(thermal, visible) for kind in ("resize", "affine")
    }
    return sheet(
        {
            f"thermal, {thermal.shape[1]}x{thermal.shape[0]}": thermal,
            f"visible, {visible.shape[1]}x{visible.shape[0]}": visible,
            **{f"--align {kind}, checkerboard": fused.checkerboard() for kind, fused in done.items()},
            **{f"--align {kind}, fused": fused.data for kind, fused in done.items()},
        }
    )


def radiometric() -> Image.Image:
    """The same street as counts."""
    scene = samples.street((320, 440), 0)
    counts = np.rint(21000 + 3800 * scene.infrared).astype(np.uint16)
    options: dict[str, dict[str, bool | str]] = {
        "fused, --range full": {"range": "full"},
        "fused, no --range": {},
        "fused, --clahe": {"clahe": True},
    }
    return sheet(
        {
            "counts 21000 to 24800, shown from 0 to 65535": counts / 65535,
            **{name: Fuser(FuseConfig(**kw)).fuse(counts, scene.visible).data for name, kw in options.items()},  # type: ignore[arg-type]
        }
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs" / "img")
    with errors_teach():
        out = check_folder(parser.parse_args().out)
        for name, draw in (("align", alignment), ("radiometric", radiometric)):
            draw().quantize(256).save(out / f"{name}.png", optimize=True)
            print(out / f"{name}.png")


if __name__ == "__main__":
    main()
