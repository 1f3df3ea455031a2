"""What happens on the page and at its endpoints: from the browser's values to work, and back."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import gradio as gr

from ddfm._checks import DDFMError, problem
from ddfm.app import pieces
from ddfm.app.batches import HEAD, Batch, fuse_batch
from ddfm.app.choices import Choices
from ddfm.app.folders import Folders
from ddfm.app.runs import Desk, OnStep, Stopped
from ddfm.app.studio import Fusion, Studio, Upload, check_two, safe_name

__all__ = ["WORK", "Handlers"]

#: The queue that all heavy work waits in, one at a time.
WORK = "work"
_LOG = logging.getLogger("ddfm.app")
T = TypeVar("T")


class Handlers:
    """The page's functions. Work of a session stops when it cancels, begins anew, or leaves."""

    def __init__(self, studio: Studio, folders: Folders) -> None:
        self.studio, self.folders, self.desk = studio, folders, Desk()

    # ---- the page ---------------------------------------------------------------------------------

    def restore(self, request: gr.Request) -> list[Any]:
        """The controls as the link says, and what to say of it."""
        try:
            choices, words = Choices.from_query(dict(request.query_params)), ""
        except DDFMError as error:
            choices, words = Choices(), pieces.alert(f"The link's settings are not used. {error}")
        steps = None if choices.steps < 0 else choices.steps
        return [choices.preset, steps, choices.seed, choices.noise, choices.tone, choices.align, choices.range,
                choices.clahe, words]  # fmt: skip

    def look(self, file: str | None, request: gr.Request) -> str:
        """A dropped file, shown, or why it cannot be."""
        if not file:
            return ""
        upload = _upload(file)
        try:
            look = self.studio.look(upload, self.folders.make(_session(request)))
        except Exception as error:
            return pieces.alert(_words(error))
        picture = f'<img src="{pieces.url(look.picture)}" alt="{pieces.escape(upload.name)}" style="max-width:100%">'
        return f'{picture}<div class="dd-small">{pieces.escape(look.words)}</div>'

    def fuse(
        self, request: gr.Request, infrared: str | None, visible: str | None, *controls: Any
    ) -> Iterator[list[Any]]:
        """Progress, then the result."""

        def work(on_step: OnStep) -> Fusion:
            choices = Choices.of_page(*controls)
            uploads = check_two(_dropped(infrared), _dropped(visible))
            return self.studio.fuse(uploads, choices, self.folders.make(_session(request)), on_step)

        for status, done in self._watched(request, work):
            if not done:
                yield [status, *[gr.skip()] * 5]
                continue
            (fusion,) = done
            words = f"Done in {fusion.report['seconds']:.2f} s: {_shape(fusion)}"
            files = [gr.update(value=str(p), interactive=True) for p in (fusion.fused, fusion.tiff, fusion.settings)]
            sliders, table = _shown(fusion)
            yield [pieces.said(words), sliders, table, *files]

    def explain(
        self, request: gr.Request, infrared: str | None, visible: str | None, seeds: float, *controls: Any
    ) -> Iterator[list[Any]]:
        """Progress, then the report in a frame."""

        def work(on_step: OnStep) -> dict[str, Path]:
            choices = Choices.of_page(*controls)
            uploads = check_two(_dropped(infrared), _dropped(visible))
            return self.studio.explain(uploads, choices, int(seeds), self.folders.make(_session(request)), on_step)

        for status, done in self._watched(request, work):
            if not done:
                yield [status, *[gr.skip()] * 4]
                continue
            (paths,) = done
            files = [
                gr.update(value=str(p) if p else None, interactive=bool(p))
                for p in map(paths.get, ("html", "gif", "mp4"))
            ]
            yield [pieces.said("Done."), pieces.framed(paths["html"].read_text("utf-8")), *files]

    def batch(
        self, request: gr.Request, infrared: list[str] | None, visible: list[str] | None, *controls: Any
    ) -> Iterator[list[Any]]:
        """Progress, then the table and the zip."""

        def work(on_step: OnStep) -> Batch:
            choices = Choices.of_page(*controls)
            sides = [[_upload(file) for file in files or ()] for files in (infrared, visible)]
            return self._batch(sides, choices, _session(request), on_step)

        for status, done in self._watched(request, work):
            if not done:
                yield [status, gr.skip(), gr.skip(), gr.skip()]
                continue
            (batch,) = done
            count = sum(row[1] == "fused" for row in batch.rows)
            files = [gr.update(value=str(p), interactive=True) for p in (batch.results, batch.table)]
            table = pieces.table(HEAD, batch.rows, "What became of each pair")
            yield [pieces.said(f"{count} of {len(batch.rows)} fused."), table, *files]

    def cancel(self, request: gr.Request) -> Any:
        """Stop what runs for this session."""
        return pieces.said("Stopping ...") if self.desk.stop(_session(request)) else gr.skip()

    def leave(self, request: gr.Request) -> None:
        """The page was closed or loaded again: its work ends, its files go."""
        self.desk.stop(_session(request))
        self.folders.forget(_session(request))

    def _watched(self, request: gr.Request, work: Callable[[OnStep], T]) -> Iterator[tuple[str, tuple[T, ...]]]:
        """(status, ()) while the work goes on or failed, then ("", (its result,))."""
        session = _session(request)
        run = self.desk.begin(session, work)
        try:
            for at in run.updates():
                yield pieces.progress(at), ()
            result = run.result()
        except Stopped:
            yield pieces.said("Stopped. Nothing was kept."), ()
        except Exception as error:
            yield pieces.alert(_words(error)), ()
        else:
            yield "", (result,)
        finally:
            self.desk.end(session, run)

    def _batch(self, sides: Sequence[Sequence[Upload]], choices: Choices, session: str, on_step: OnStep) -> Batch:
        on_step(0, 0, "loading")
        fuser = self.studio.fuser(choices)
        return fuse_batch(sides[0], sides[1], fuser, self.folders.make(session), self.studio.limits, on_step)

    # ---- for programs -----------------------------------------------------------------------------

    def api_fuse(
        self,
        request: gr.Request,
        infrared: gr.FileData,
        visible: gr.FileData,
        preset: str = "balanced",
        steps: int = -1,
        seed: int = 0,
        noise: str = "",
        tone: str = "",
        align: str = "none",
        range: str = "",
        clahe: bool = False,
    ) -> tuple[gr.FileData, gr.FileData, gr.FileData, dict[str, str]]:
        """Fuse two pictures: PNG of 8 bits, TIFF of 16 bits, settings as JSON, and metrics by name.

        infrared: thermal picture, or CT, PET, SPECT. visible: of the same scene, or MRI. steps: network evaluations, -1
        as the preset says. noise: "" as the preset says, "auto", or a deviation on 0 to 1. tone: "", "none", "minmax",
        "percentile". align: "none", "resize", "translation", "affine", "homography". range: "", "auto", "LOW:HIGH".
        """

        def work() -> Fusion:
            choices = Choices(preset, steps, seed, noise, tone, align, range, clahe)
            uploads = [_upload(_path(infrared)), _upload(_path(visible))]
            return self.studio.fuse(uploads, choices, self.folders.make(_session(request)), _unseen)

        fusion = _answered(work)
        values = {row[0]: row[2] for row in fusion.rows}
        return _file(fusion.fused), _file(fusion.tiff), _file(fusion.settings), values

    def api_explain(
        self,
        request: gr.Request,
        infrared: gr.FileData,
        visible: gr.FileData,
        preset: str = "balanced",
        steps: int = -1,
        seed: int = 0,
        seeds: int = 4,
    ) -> gr.FileData:
        """How a fusion came about, as one HTML file. seeds: for the uncertainty map, 0 for none."""

        def work() -> dict[str, Path]:
            uploads = [_upload(_path(infrared)), _upload(_path(visible))]
            folder = self.folders.make(_session(request))
            return self.studio.explain(uploads, Choices(preset, steps, seed), seeds, folder, _unseen)

        return _file(_answered(work)["html"])

    def api_batch(
        self, request: gr.Request, infrared: gr.FileData, visible: gr.FileData, preset: str = "balanced", seed: int = 0
    ) -> tuple[gr.FileData, gr.FileData]:
        """Fuse the pairs of two zip files: a zip of results, and a table as CSV."""

        def work() -> Batch:
            sides = [[_upload(_path(infrared))], [_upload(_path(visible))]]
            return self._batch(sides, Choices(preset, seed=seed), _session(request), _unseen)

        batch = _answered(work)
        return _file(batch.results), _file(batch.table)


def _unseen(done: int, of: int, what: str = "") -> None:
    """Nobody looks."""


def _session(request: gr.Request) -> str:
    return str(request.session_hash)


def _dropped(file: str | None) -> Upload | None:
    return _upload(file) if file else None


def _upload(file: str | Path) -> Upload:
    path = Path(file)
    return Upload(path, safe_name(path.name))


def _path(file: Any) -> Path:
    given = file.get("path") if isinstance(file, dict) else getattr(file, "path", None)
    if not given:
        raise problem("file", "none", "an uploaded file", "Give it with gradio_client.handle_file.")
    return Path(given)


def _file(path: Path) -> Any:
    return gr.FileData(path=str(path), orig_name=path.name)


def _answered(work: Callable[[], T]) -> T:
    try:
        return work()
    except Exception as error:
        raise gr.Error(_words(error), print_exception=False) from error


def _words(error: Exception) -> str:
    """What a stranger is told: of mistakes what to do, of our own faults no more than a number for the log."""
    if isinstance(error, DDFMError):
        return str(error)
    number = secrets.token_hex(4)
    _LOG.error("fault %s", number, exc_info=error)
    return f"Something went wrong here, not with your files. The server's log has it under {number}."


def _shape(fusion: Fusion) -> str:
    height, width = fusion.report["size"]
    return f"{width} x {height} pixels, {fusion.report['preset']}"


def _shown(fusion: Fusion) -> tuple[str, str]:
    """Notes and a slider against each source; metrics."""
    names = ("thermal (1)", "visible (2)")
    sliders = "".join(
        f"<h3>Fused, and the {name} picture</h3>"
        + pieces.compare(fusion.fused, source, "fused", name, f"Fused against {name}")
        for name, source in zip(names, fusion.sources, strict=True)
    )
    head = ("metric", "better", "value", "what it says")
    table = pieces.table(head, fusion.rows, "How good is it? Numbers beside the eye, never in place of it.")
    return pieces.notes(fusion.notes) + sliders, table
