"""Files beside a result: the transform that was estimated, and the checkerboard to judge it by."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from ddfm._checks import problem
from ddfm.fusion import FuseConfig, Fused
from ddfm.io import SUFFIXES, encode_image, write_bytes
from ddfm.planning import Job

__all__ = ["Beside"]


@dataclasses.dataclass(frozen=True)
class Beside:
    """Where transform and checkerboard of each job go.

    transform, checkerboard: files; with ``folder``, the output folder of many jobs, they are folders, and the files in
    them are called as the results are.
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

    def check_free(self, job: Job, overwrite: bool) -> None:
        """Refuse a job whose files beside it exist. Raises DDFMError."""
        for option, path in self._paths(job).items():
            if not overwrite and os.path.lexists(path):
                raise problem(option, f"{path}, which exists", "a new name", "Allow it with --overwrite.")

    def write(self, job: Job, fused: Fused, overwrite: bool) -> None:
        """Write what was asked for. Raises DDFMError."""
        for option, path in self._paths(job).items():
            path.parent.mkdir(parents=True, exist_ok=True)
            if option == "--save-transform":
                fused.save_transform(path, overwrite=overwrite)
            else:
                write_bytes(path, encode_image(fused.checkerboard(), path.suffix), overwrite=overwrite)

    @property
    def _asked(self) -> dict[str, Path]:
        both = {"--save-transform": self.transform, "--checkerboard": self.checkerboard}
        return {option: path for option, path in both.items() if path}

    def _paths(self, job: Job) -> dict[str, Path]:
        """The file of each option for this job."""
        if not self.folder:
            return self._asked
        below = job.output.relative_to(self.folder)
        suffixes = {"--save-transform": ".json", "--checkerboard": ".png"}
        return {option: (path / below).with_suffix(suffixes[option]) for option, path in self._asked.items()}

    def _check_path(self, option: str, path: Path, overwrite: bool) -> None:
        if self.folder:
            if path.exists() and not path.is_dir():
                raise problem(option, f"{path}, a file", "a folder, as there are many results")
            if path.absolute() == self.folder.absolute():
                raise problem(option, f"{path}, the folder of the results", "another folder")
            return
        if path.is_dir() or not path.parent.is_dir():
            raise problem(option, path, "a file in an existing folder")
        if option == "--checkerboard" and path.suffix.lower() not in SUFFIXES:
            raise problem(option, path, f"a name ending in {', '.join(SUFFIXES)}")
        if not overwrite and os.path.lexists(path):
            raise problem(option, f"{path}, which exists", "a new name", "Allow it with --overwrite.")
