"""Speed of the metrics beside a straightforward implementation with scipy, as ratios from one run, in turn.

The other side is written as the definitions read: two-dimensional windows by scipy.signal.convolve2d for VIF and SSIM,
convolve2d for Sobel, numpy histograms. Both give the same values, which is checked before the clock starts.

    python benchmarks/metrics_speed.py [--size 480 640] [--rounds 5] [--threads 1] [--output FILE]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from scipy.signal import convolve2d

from _common import RESULTS, median_ratio, provenance, write_json
from ddfm import metrics, samples


def entropy(f, a, b):
    p = np.histogram(f, 256, (0, 256))[0] / f.size
    return -(p[p > 0] * np.log2(p[p > 0])).sum()


def deviation(f, a, b):
    return f.std()


def information(f, a, b):
    total = 0.0
    for s in (a, b):
        joint = np.histogram2d(f.ravel(), s.ravel(), 256, ((0, 256), (0, 256)))[0] / f.size
        outer = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
        mask = joint > 0
        total += (joint[mask] * np.log(joint[mask] / outer[mask])).sum()
    return total


def ssim(f, a, b):
    window, total = np.ones((7, 7)) / 49, 0.0
    for s in (a, b):
        mf, ms, ff, ss, fs = (convolve2d(v, window, "valid") for v in (f, s, f * f, s * s, f * s))
        vf, vs, cov = (49 / 48 * v for v in (ff - mf**2, ss - ms**2, fs - mf * ms))
        c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
        total += ((2 * mf * ms + c1) * (2 * cov + c2) / ((mf**2 + ms**2 + c1) * (vf + vs + c2))).mean()
    return total


def vif_one(d, r):
    kept = total = 0.0
    for scale in range(4):
        size = 2 ** (4 - scale) + 1
        x = np.arange(size) - size // 2
        window = np.exp(-(x[:, None] ** 2 + x**2) / (2 * (size / 5) ** 2))
        window /= window.sum()
        if scale:
            r, d = (convolve2d(v, window, "valid")[::2, ::2] for v in (r, d))
        mr, md, rr, dd, rd = (convolve2d(v, window, "valid") for v in (r, d, r * r, d * d, r * d))
        sr, sd, srd = np.maximum(rr - mr**2, 0), np.maximum(dd - md**2, 0), rd - mr * md
        g = srd / (sr + 1e-10)
        sv = sd - g * srd
        g[sr < 1e-10], sv[sr < 1e-10], sr[sr < 1e-10] = 0, sd[sr < 1e-10], 0
        g[sd < 1e-10], sv[sd < 1e-10] = 0, 0
        sv[g < 0], g[g < 0] = sd[g < 0], 0
        kept += np.log10(1 + g * g * sr / (np.maximum(sv, 1e-10) + 2)).sum()
        total += np.log10(1 + sr / 2).sum()
    return kept / total


def vif(f, a, b):
    return vif_one(f, a) + vif_one(f, b)


def qabf(f, a, b):
    def edges(image):
        gx = convolve2d(image, [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]], "same")
        gy = convolve2d(image, [[1, 2, 1], [0, 0, 0], [-1, -2, -1]], "same")
        angle = np.full_like(gx, np.pi / 2)
        np.divide(gy, gx, out=angle, where=gx != 0)
        return np.hypot(gx, gy), np.where(gx == 0, np.pi / 2, np.arctan(angle))

    gf, af = edges(f)
    kept = weight = 0.0
    for s in (a, b):
        gs, as_ = edges(s)
        with np.errstate(invalid="ignore"):
            ratio = np.where(gf == gs, gf, np.minimum(gf, gs) / np.maximum(gf, gs))
        angle = 1 - np.abs(as_ - af) / (np.pi / 2)
        q = 0.9994 / (1 + np.exp(-15 * (ratio - 0.5))) * 0.9879 / (1 + np.exp(-22 * (angle - 0.8)))
        kept += (q * gs).sum()
        weight += gs.sum()
    return kept / weight


def scd(f, a, b):
    def r(x, y):
        return np.corrcoef(x.ravel(), y.ravel())[0, 1]

    return r(f - b, a) + r(f - a, b)


PLAIN = {
    "EN": entropy,
    "SD": deviation,
    "MI": information,
    "VIF": vif,
    "Qabf": qabf,
    "SSIM": ssim,
    "SCD": scd,
}


def seconds(call: Callable) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=2, default=(480, 640))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=RESULTS / "metrics_speed.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    scene = samples.street(tuple(options.size), 0)
    a = np.rint(scene.infrared * 255).astype(float)
    b = np.rint(np.asarray(scene.visible) @ [0.299, 0.587, 0.114] * 255) if scene.visible.ndim == 3 else scene.visible
    f = np.round((a + b) / 2)
    tensors = [torch.from_numpy(np.ascontiguousarray(x))[None, None] for x in (f, a, b)]
    rows = {}
    for name, plain in PLAIN.items():
        ours = float(metrics.evaluate(*tensors, metrics=[name])[name])
        theirs = float(plain(f, a, b))
        assert abs(ours - theirs) < 1e-6 * abs(theirs), (name, ours, theirs)
        pairs = [
            (seconds(lambda: plain(f, a, b)), seconds(lambda: metrics.evaluate(*tensors, metrics=[name])))  # noqa: B023
            for _ in range(options.rounds)
        ]
        rows[name] = median_ratio(*zip(*pairs, strict=True))
        print(name, rows[name])
    together = sorted(seconds(lambda: metrics.evaluate(*tensors, metrics="six,SCD")) for _ in range(options.rounds))[
        options.rounds // 2
    ]
    print("the six and SCD together", round(together, 3), "s")
    payload = {"provenance": provenance(("scipy",)), "size": options.size, "threads": options.threads}
    write_json(options.output, payload | {"rows": rows, "six_and_scd_seconds": together})


if __name__ == "__main__":
    main()
