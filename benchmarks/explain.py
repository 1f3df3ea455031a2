"""The picture of docs/explain.md: the rendered street fused, which source each pixel follows, and how sure that is.

python benchmarks/explain.py [--seeds 8] [--out docs/img/explain.png]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from ddfm import samples
from ddfm.demo import quantise, side_by_side
from ddfm.explaining import explain, maps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--out", type=Path, default=Path("docs/img/explain.png"))
    options = parser.parse_args()
    street = samples.street(seed=0)
    told = explain(street.infrared, street.visible, seeds=options.seeds, labels=["infrared", "visible"])
    assert told.shares is not None
    assert told.spread is not None
    levels = told.spread * 255
    top = maps.spread_top(levels)
    pictures = {
        "fused": quantise(told.fused.data),
        "orange: infrared, blue: visible": maps.share_map(told.shares),
        f"between seeds; yellow: {top:g} grey levels": maps.spread_map(levels, top),
    }
    small = [np.asarray(Image.fromarray(data).resize((400, 300), Image.Resampling.BOX)) for data in pictures.values()]
    sheet = Image.fromarray(side_by_side(small, list(pictures)))
    sheet.save(options.out, optimize=True)


if __name__ == "__main__":
    main()
