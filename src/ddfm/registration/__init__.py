"""Pictures of one scene brought onto one grid: estimate, judge, apply and keep a transform.

The last source is the reference: its grid is the grid of the result. Every other source is a *moving* picture, and a
``Transform`` takes pixel centres (x, y) of the reference to pixel centres of the moving picture, the direction in
which a picture is resampled. Pixel centres are whole numbers, (0, 0) the first one.

``estimate`` measures how alike pictures of two modalities are by the correlation of their orientation fields (see
``registration.search``) and refuses what it cannot vouch for (``registration.trust``).
"""

from ddfm.registration.boards import checkerboard
from ddfm.registration.estimation import estimate
from ddfm.registration.gathering import bring_together
from ddfm.registration.transform import ALIGNS, KINDS, Evidence, Transform, load_transforms, resizing, save_transforms
from ddfm.registration.warping import apply, fill_outside

__all__ = [
    "ALIGNS",
    "KINDS",
    "Evidence",
    "Transform",
    "apply",
    "bring_together",
    "checkerboard",
    "estimate",
    "fill_outside",
    "load_transforms",
    "resizing",
    "save_transforms",
]
