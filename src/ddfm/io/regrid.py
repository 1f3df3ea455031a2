"""One volume on the grid of another: linear interpolation by SimpleITK, slice by slice, where the headers say it lies.

The headers' positions are taken as they are: this is no registration. Index space is resampled instead of millimetres,
so that any affine will do, a tilted gantry's too: output index (i, j, k) lies at B^-1 A (i, j, k, 1) in the input.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ddfm._checks import problem
from ddfm.io.volume import Geometry, Volume

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Regridded", "regrid"]


def regrid(volume: Volume, grid: Geometry) -> Volume:
    """``volume`` on ``grid``: NaN (black, if it is RGB) outside of it. All of it is held in memory as float32.

    Raises DDFMError where one of the two states no position, or without SimpleITK.
    """
    if not (volume.geometry.known and grid.known):
        raise problem("--resample", f"{volume.name} or the last source states no position", "volumes placed in space")
    return Regridded(volume, grid)


class Regridded(Volume):
    """See ``regrid``."""

    def __init__(self, volume: Volume, grid: Geometry) -> None:
        import numpy as np

        self.origin, self.geometry = volume, grid
        self.kind, self.name, self.is_color = volume.kind, volume.name, volume.is_color
        self.window, self.inverted = volume.window, volume.inverted
        self.notes, self.burned_in, self.lossy = volume.notes, volume.burned_in, volume.lossy
        self._map = np.linalg.inv(volume.geometry.affine) @ grid.affine
        self._image = self._load(volume)

    def _load(self, volume: Volume) -> Any:
        """The whole volume for SimpleITK, which copies it; where it has no value, its darkest. Raises DDFMError."""
        import numpy as np
        import psutil

        columns, rows, slices = volume.geometry.shape
        need, free = 8 * columns * rows * slices * (1 + 2 * volume.is_color), psutil.virtual_memory().available
        if need > 0.8 * free:
            got, expected = f"{volume.name}, {need / 1e9:.1f} GB", f"what fits the {free / 1e9:.1f} GB of free memory"
            raise problem("--resample", got, expected, "Crop it, or resample it beforehand.")
        data = np.empty((slices, rows, columns, *((3,) if volume.is_color else ())), np.float32)
        for k in range(slices):
            data[k] = volume.slice(k)
        if not volume.is_color:
            missing = ~np.isfinite(data)
            if missing.any() and not missing.all():
                known = data[~missing]
                data[missing] = known.max() if volume.inverted else known.min()
        return _sitk().GetImageFromArray(data, isVector=volume.is_color)

    def slice(self, k: int) -> np.ndarray:
        """See ``Volume.slice``."""
        import numpy as np

        sitk = _sitk()
        transform = sitk.AffineTransform(3)
        transform.SetMatrix(self._map[:3, :3].ravel().tolist())
        transform.SetTranslation((self._map[:3, 3] + k * self._map[:3, 2]).tolist())
        kind = sitk.sitkVectorFloat32 if self.is_color else sitk.sitkFloat32
        columns, rows, _ = self.geometry.shape
        place = [0.0, 0.0, 0.0], [1.0, 1.0, 1.0], np.eye(3).ravel().tolist()
        out = sitk.Resample(self._image, [columns, rows, 1], transform, sitk.sitkLinear, *place, float("nan"), kind)
        return np.asarray(sitk.GetArrayFromImage(out)[0])

    def sha256(self) -> str:
        """Of the original."""
        return self.origin.sha256()


def _sitk() -> Any:
    try:
        import SimpleITK
    except ImportError:
        raise problem("--resample", "no SimpleITK", "SimpleITK", "Install it: pip install 'ddfm[medical]'.") from None
    return SimpleITK
