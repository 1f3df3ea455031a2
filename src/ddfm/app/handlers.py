"""What happens on the page: from the browser's values to work, and back."""

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
from ddfm.app.words import as_on_the_page

__all__ = ["WORK", "Handlers", "in_words", "session_of"]

#: The queue that all heavy work waits in, one at a time.
WORK = "work"
_LOG = logging.getLogger("ddfm.app")
T = TypeVar("T")


class Handlers:
    """The page's functions. Work of a session stops when it cancels, begins anew, or leaves."""

    def __init__(self, studio: Studio, folders: Folders, desk: Desk) -> None:
        self.studio, self.folders, self.desk = studio, folders, desk

    def restore(self, request: gr.Request) -> list[Any]:
        """The controls as the link says, and what to say of it."""
        try:
            choices, words = Choices.from_query(dict(request.query_params)), ""
        except DDFMError as error:
            choices, words = Choices(), pieces.alert(f"The link's settings are not used. {error}")
        steps = None if choices.steps < 0 else choices.steps
        return [choices.preset, steps, choices.seed, choices.noise, choices.tone, choices.align, choices.range,
                choices.clahe, words]  # fmt: skip

    def waits(self) -> str:
        """What is said from the click until the work begins."""
        return pieces.said("Waiting for its turn ...")

    def look(self, file: str | None, request: gr.Request) -> str:
        """A dropped file, shown, or why it cannot be."""
        if not file:
            return ""
        try:
            upload = self.upload(session_of(request), file)
            folder = self.folders.make(session_of(request))
            look = self.desk.look(lambda: self.studio.look(upload, folder))
        except Exception as error:
            return pieces.alert(in_words(error))
        picture = f'<img src="{pieces.url(look.picture)}" alt="{pieces.escape(upload.name)}" style="max-width:100%">'
        return f'{picture}<div class="dd-small">{pieces.escape(look.words)}</div>'

    def fuse(
        self, request: gr.Request, infrared: str | None, visible: str | None, *controls: Any
    ) -> Iterator[list[Any]]:
        """Progress, then the result."""

        def work(on_step: OnStep) -> Fusion:
            choices = Choices.of_page(*controls)
            uploads = check_two(
                *[self.upload(session_of(request), file) if file else None for file in (infrared, visible)]
            )
            return self.studio.fuse(uploads, choices, self.folders.make(session_of(request)), on_step)

        for status, done in self._watched(request, work):
            if not done:
                yield [status, gr.skip(), gr.skip()]
                continue
            (fusion,) = done
            words = f"Done in {fusion.report['seconds']:.2f} s: {_shape(fusion)}"
            files = {"Picture, PNG": fusion.fused, "16-bit TIFF": fusion.tiff, "Settings, JSON": fusion.settings}
            sliders, table = _shown(fusion)
            yield [pieces.said(words), sliders + pieces.downloads(files), table]

    def explain(
        self, request: gr.Request, infrared: str | None, visible: str | None, seeds: float, *controls: Any
    ) -> Iterator[list[Any]]:
        """Progress, then the report in a frame."""

        def work(on_step: OnStep) -> dict[str, Path]:
            choices = Choices.of_page(*controls)
            uploads = check_two(
                *[self.upload(session_of(request), file) if file else None for file in (infrared, visible)]
            )
            return self.studio.explain(uploads, choices, int(seeds), self.folders.make(session_of(request)), on_step)

        for status, done in self._watched(request, work):
            if not done:
                yield [status, gr.skip()]
                continue
            (paths,) = done
            names = {"Report, HTML": "html", "Time-lapse, GIF": "gif", "Time-lapse, MP4": "mp4"}
            links = pieces.downloads({words: paths[key] for words, key in names.items() if key in paths})
            yield [pieces.said("Done."), links + pieces.framed(paths["html"].read_text("utf-8"))]

    def batch(
        self, request: gr.Request, infrared: list[str] | None, visible: list[str] | None, *controls: Any
    ) -> Iterator[list[Any]]:
        """Progress, then the table and the zip."""

        def work(on_step: OnStep) -> Batch:
            choices = Choices.of_page(*controls)
            sides = [[self.upload(session_of(request), file) for file in files or ()] for files in (infrared, visible)]
            return self.fuse_batch(sides, choices, session_of(request), on_step)

        for status, done in self._watched(request, work):
            if not done:
                yield [status, gr.skip()]
                continue
            (batch,) = done
            count = sum(row[1] == "fused" for row in batch.rows)
            links = pieces.downloads({"Results, zip": batch.results, "Table, CSV": batch.table})
            table = pieces.table(HEAD, batch.rows, "What became of each pair")
            yield [pieces.said(f"{count} of {len(batch.rows)} fused."), links + table]

    def cancel(self, request: gr.Request) -> str:
        """Stop what runs for this session; what waits is taken out of the queue by the page."""
        self.desk.stop(session_of(request))
        return pieces.said("Stopped. Nothing was kept.")

    def leave(self, request: gr.Request) -> None:
        """The page was closed or loaded again: its work ends, its files go."""
        self.desk.stop(session_of(request))
        self.folders.forget(session_of(request))

    def upload(self, session: str, file: str | Path) -> Upload:
        """A file that was uploaded, or is an example. Raises DDFMError for any other of this machine."""
        path = Path(file).resolve()
        if not path.is_relative_to(self.folders.uploads) and not path.is_relative_to(self.folders.examples):
            raise problem("file", "one that was not uploaded", "an uploaded file", "With gradio_client: handle_file.")
        self.folders.use(session, path)
        return Upload(path, safe_name(path.name))

    def _watched(self, request: gr.Request, work: Callable[[OnStep], T]) -> Iterator[tuple[str, tuple[T, ...]]]:
        """(status, ()) while the work goes on or failed, then ("", (its result,))."""
        session = session_of(request)
        run = self.desk.begin(session, work)
        try:
            for at in run.updates():
                yield pieces.progress(at), ()
            result = run.result()
        except Stopped:
            yield pieces.said("Stopped. Nothing was kept."), ()
        except Exception as error:
            yield pieces.alert(in_words(error)), ()
        else:
            yield "", (result,)
        finally:
            self.desk.end(session, run)

    def fuse_batch(self, sides: Sequence[Sequence[Upload]], choices: Choices, session: str, on_step: OnStep) -> Batch:
        """The pairs of both sides fused in a folder of the session's. Raises DDFMError."""
        on_step(0, 0, "loading")
        fuser = self.studio.fuser(choices)
        return fuse_batch(sides[0], sides[1], fuser, self.folders.make(session), self.studio.limits, on_step)


def session_of(request: gr.Request) -> str:
    """Whose request it is."""
    return str(request.session_hash)


def in_words(error: Exception) -> str:
    """What a stranger is told: of mistakes what to do, of our own faults no more than a number for the log."""
    if isinstance(error, Stopped):
        return "Stopped. Nothing was kept."
    if not isinstance(error, DDFMError):
        number = secrets.token_hex(4)
        _LOG.error("fault %s", number, exc_info=error)
        return f"Something went wrong here. The server's log has it under {number}."
    return as_on_the_page(str(error))


def _shape(fusion: Fusion) -> str:
    height, width = fusion.report["size"]
    return f"{width} x {height} pixels, {fusion.report['preset']}"


def _shown(fusion: Fusion) -> tuple[str, str]:
    """Notes and a slider against each source; metrics."""
    names = [f"{k}: {entry['path']}" for k, entry in enumerate(fusion.report["inputs"], 1)]
    sliders = "".join(
        pieces.compare(fusion.fused, source, "fused", name, fusion.report["size"][1])
        for name, source in zip(names, fusion.sources, strict=True)
    )
    sliders = f'<div class="dd-two">{sliders}</div>'
    head = ("metric", "better", "value", "what it says")
    table = pieces.table(head, fusion.rows, "How good is it? Numbers beside the eye, never in place of it.")
    return pieces.notes(fusion.notes) + sliders, table
