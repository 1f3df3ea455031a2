"""Files beside a result: the transform that was estimated, and the checkerboard to judge it by."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ddfm._checks import problem
from ddfm.fusion import FuseConfig, eight_bits
from ddfm.io import SUFFIXES, encode_image
from ddfm.journal import JOURNAL
from ddfm.planning import check_targets
from ddfm.registration import Transform, checkerboard
from ddfm.registration.transform import encode_transforms

__all__ = ["Beside"]

_SUFFIXES = {"--save-transform": ".json", "--checkerboard": ".png"}


@dataclasses.dataclass(frozen=True)
class Beside:
    """Where transform and checkerboard of each result go.

    transform, checkerboard: files; with ``folder``, the output folder of many results, they are folders, and the files
    in them are called as the results are.
    """

    transform: Path | None = None
    checkerboard: Path | None = None
    folder: Path | None = None

    def check(self, config: FuseConfig, overwrite: bool) -> None:
        """Refuse, before any work, what cannot be: nothing to keep, or a name that is taken. Raises DDFMError."""
        for option, path in self._asked.items():
            if not config.preparation.aligns:
                raise problem(option, path, "it beside --align or --transform", "Say how: --align affine.")
        if self.transform and config.transform:
            raise problem("--save-transform", self.transform, "it without --transform", "That file has it already.")
        for option, path in self._asked.items():
            self._check_path(option, path, overwrite)

    def check_apart(self, outputs: Sequence[Path], sources: Sequence[Path], report: Path | None = None) -> None:
        """Refuse, before any work, to write onto a source, or two of the files into one. Raises DDFMError."""
        check_targets(self._targets(outputs, report), sources)

    def check_free(self, output: Path, overwrite: bool) -> None:
        """Refuse a result whose files beside it exist. Raises DDFMError."""
        for option, path in self.paths(output).items():
            if not overwrite and os.path.lexists(path):
                raise problem(option, f"{path}, which exists", "a new name", "Allow it with --overwrite.")

    def contents(
        self, output: Path, transforms: Sequence[Transform], pictures: Sequence[np.ndarray]
    ) -> dict[Path, bytes]:
        """What was asked for beside that result; pictures: the sources on one grid, uint8 or float in [0, 1]."""
        found = {}
        for option, path in self.paths(output).items():
            if option == "--save-transform":
                found[path] = encode_transforms(transforms)
            else:
                first, last = (eight_bits(pictures[k]) / np.float32(255) for k in (0, -1))
                found[path] = encode_image(checkerboard(first, last), path.suffix)
        return found

    def missing(self, output: Path) -> bool:
        """Whether a file beside that result is still to be made."""
        return not all(os.path.lexists(path) for path in self.paths(output).values())

    def paths(self, output: Path) -> dict[str, Path]:
        """The file of each option for this result."""
        if not self.folder:
            return self._asked
        below = output.relative_to(self.folder)
        return {option: (path / below).with_suffix(_SUFFIXES[option]) for option, path in self._asked.items()}

    def _targets(self, outputs: Sequence[Path], report: Path | None) -> Iterator[tuple[str, Path]]:
        for output in outputs:
            yield "--output", output
        for output in outputs:
            yield from self.paths(output).items()
        if self.folder:
            yield "the journal", self.folder / JOURNAL
        if report:
            yield "--report", report

    @property
    def _asked(self) -> dict[str, Path]:
        both = {"--save-transform": self.transform, "--checkerboard": self.checkerboard}
        return {option: path for option, path in both.items() if path}

    def _check_path(self, option: str, path: Path, overwrite: bool) -> None:
        if self.folder:
            if path.exists() and not path.is_dir():
                raise problem(option, f"{path}, a file", "a folder, as there are many results")
            if path.resolve() == self.folder.resolve():
                raise problem(option, f"{path}, the folder of the results", "another folder")
            return
        if path.is_dir() or not path.parent.is_dir():
            raise problem(option, path, "a file in an existing folder")
        if option == "--checkerboard" and path.suffix.lower() not in SUFFIXES:
            raise problem(option, path, f"a name ending in {', '.join(SUFFIXES)}")
        if not overwrite and os.path.lexists(path):
            raise problem(option, f"{path}, which exists", "a new name", "Allow it with --overwrite.")
