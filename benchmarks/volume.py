"""Fused volumes: how much slices flicker one by one and as a scene, what memory they take, and the sheet of the docs.

Flicker: the mean over each slice of what one linear map of the true sources, the same for all slices, leaves of the
fused volume; its mean step from slice to slice, and its standard deviation. Rendered heads only. Memory: peak of a
process of its own that fuses two int16 .nii files of --memory slices of 512x512 each, whatever the count.

    python benchmarks/volume.py [--seeds 3] [--slices 24] [--size 128] [--memory 20,200] [--sheet docs/img/volume.png]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from _common import RESULTS, check_output, errors_teach, positive, provenance, write_json
from ddfm.demo import quantise
from ddfm.fusion import FuseConfig, Fuser
from ddfm.io import encode_image, write_bytes
from ddfm.phantoms import PhantomVolume, phantom_volume
from ddfm.sequence import SceneFuser

LUMA = np.float32([0.299, 0.587, 0.114])
SHOWN = 5  # slices of the sheet
PEAK = """
import resource, sys
from ddfm.cli import main
sys.argv = ["ddfm", "fuse", *sys.argv[1:]]
try:
    main()
except SystemExit as stop:
    assert not stop.code
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def lit(head: PhantomVolume) -> list[int]:
    """Slices that show something."""
    return [k for k in range(len(head.mri)) if head.mri[k].any()]


def luma(picture: np.ndarray) -> np.ndarray:
    """Of one slice or of all."""
    return picture @ LUMA if picture.shape[-1] == 3 else picture


def both(head: PhantomVolume, fuser: Fuser) -> tuple[np.ndarray, np.ndarray]:
    """The lit slices fused each alone, and as a scene that has learned from all of them."""
    pairs = [(head.functional[k], head.mri[k]) for k in lit(head)]
    scene = SceneFuser(fuser)
    scene.learn(pairs)
    return np.stack([fuser.fuse(*pair).data for pair in pairs]), np.stack([scene.fuse(*pair) for pair in pairs])


def levels(fused: np.ndarray, head: PhantomVolume) -> np.ndarray:
    """(K,): how bright each lit slice is beyond one linear map of the true sources."""
    slices = lit(head)
    masks = [head.clean_mri[k] > 0 for k in slices]
    truth = [
        [luma(head.clean_functional[k])[mask], head.clean_mri[k][mask], np.ones(mask.sum())]
        for k, mask in zip(slices, masks, strict=True)
    ]
    values = [luma(picture)[mask] for picture, mask in zip(fused, masks, strict=True)]
    weights = np.linalg.lstsq(np.concatenate(truth, 1).T, np.concatenate(values), rcond=None)[0]
    return np.array([np.mean(v - weights @ np.array(t)) for v, t in zip(values, truth, strict=True)])


def flicker(modality: str, seeds: int, shape: tuple[int, int, int], fuser: Fuser) -> dict[str, Any]:
    """In grey levels of 255, means over the seeds."""
    rows: dict[str, list[np.ndarray]] = {"alone": [], "scene": []}
    for seed in range(seeds):
        head = phantom_volume(shape, seed, modality)
        for name, fused in zip(rows, both(head, fuser), strict=True):
            rows[name].append(255 * levels(fused, head))
    return {
        name: {
            "step": round(float(np.mean([np.abs(np.diff(v)).mean() for v in values])), 3),
            "std": round(float(np.mean([v.std() for v in values])), 3),
        }
        for name, values in rows.items()
    }


def peak(slices: int) -> int:
    """Bytes that fusing two volumes of 512 x 512 x ``slices`` takes at most."""
    head = phantom_volume((10, 512, 512))
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{name}.nii" for name in ("ct", "mri")]
        for path, data in zip(paths, (head.functional, head.mri), strict=True):
            whole = np.int16(1000 * data).repeat(-(-slices // 10), 0)[:slices]
            nib.save(nib.Nifti1Image(whole.transpose(2, 1, 0), np.diag([0.43, 0.43, 1.0, 1.0])), path)
        command = [sys.executable, "-c", PEAK, *map(str, paths), "-o", str(Path(folder) / "fused.nii")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1])


def sheet(shape: tuple[int, int, int], fuser: Fuser) -> np.ndarray:
    """CT, MRI and their fusion, PET and its fusion with the MRI, some slices of each: uint8 (H, W, 3)."""
    rows = []
    for modality in ("ct", "pet"):
        head = phantom_volume(shape, 0, modality)
        slices = lit(head)
        chosen = np.rint(np.linspace(1, len(slices) - 3, SHOWN)).astype(int)
        _, fused = both(head, fuser)
        sources = [head.functional[slices], head.mri[slices]] if modality == "ct" else [head.functional[slices]]
        for volume in [*sources, fused]:
            row = np.concatenate(list(volume[chosen]), axis=1)
            rows.append(row if row.ndim == 3 else np.repeat(row[..., None], 3, -1))
    return quantise(np.concatenate(rows))


def main(arguments: list[str] | None = None) -> None:
    """Measure, write JSON and the sheet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=positive, default=3)
    parser.add_argument("--slices", type=positive, default=24)
    parser.add_argument("--size", type=positive, default=128)
    parser.add_argument("--memory", default="20,200", help="slices; '' for none")
    parser.add_argument("--sheet", type=Path, help="a PNG to write")
    parser.add_argument("--prior", default="bundled")
    parser.add_argument("--output", type=Path, default=RESULTS / "volume.json")
    options = parser.parse_args(arguments)
    with errors_teach():
        check_output(options.output)
        fuser = Fuser(FuseConfig(preset="medical", prior=options.prior))
        shape = (options.slices, options.size, options.size)
        measured = {m: flicker(m, options.seeds, shape, fuser) for m in ("ct", "pet", "spect")}
        memory = {n: peak(int(n)) for n in options.memory.split(",") if n}
        if options.sheet:
            content = encode_image(sheet(shape, fuser).astype(np.float32) / 255, ".png")
            write_bytes(check_output(options.sheet), content, overwrite=True)
        result = {
            **provenance(["nibabel"]),
            "preset": fuser.preset.label,
            "shape": shape,
            "seeds": options.seeds,
            "flicker_grey_levels": measured,
            "peak_bytes_512x512": memory,
        }
        write_json(options.output, result)
        print(measured, memory)


if __name__ == "__main__":
    main()
