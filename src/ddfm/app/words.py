"""The page's longer texts, Markdown in plain words."""

__all__ = ["ABOUT", "API", "BATCH", "INTRO", "LIMITS_TEXT", "NOT_MEDICAL", "as_on_the_page"]

INTRO = """# Fuse two pictures of one scene
A thermal picture shows what is warm, a visible one what things look like. This page makes one picture with the best of
both; of a CT, PET or SPECT with an MRI, too. Nothing leaves the machine on which this page runs."""

NOT_MEDICAL = """*Not a medical device, not for diagnosis. A fused picture is a computed estimate: what matters in it
must be checked in the sources. It cannot line up what moved between the two pictures, see through smoke or walls, or
measure temperatures. The bundled prior's weights are for research: see the licence.*"""

BATCH = """Two zip files, or two lists of pictures. They are paired by name; `_ir`, `_vis`, `_thermal`, `_visible` and
the like at the end of a name are left out. The settings are those of the first tab. A pair that fails does not stop the
others: the table says why."""

API = """## For programs
The same three things are there for `gradio_client`:

```python
from gradio_client import Client, handle_file

client = Client("http://127.0.0.1:7860")
fused, tiff, settings, values = client.predict(
    handle_file("ir.png"), handle_file("vis.png"), preset="balanced", api_name="/fuse"
)
```

`/explain` gives the report as one HTML file, `/batch` takes two zip files and gives a zip and a table. The link *Use
via API* at the foot of the page, on wide screens, lists every parameter; docs/app.md of the project has more."""

ABOUT = """## About
`ddfm` {version}: infrared-visible and medical image fusion by diffusion posterior sampling (DDFM, ICCV 2023), extended.
{limits}"""

LIMITS_TEXT = """This server takes pictures up to {megabytes:g} MB and {megapixels:g} megapixels, {pairs} pairs in one
batch, {waiting} requests in the queue, and deletes uploads and results after {minutes:g} minutes or when you leave the
page. It collects nothing."""

#: What the page calls otherwise than the command line.
_PAGE_WORDS = {
    "--align ": "'Bring onto one grid' to ",
    "--range ": "'Black and white' to ",
    "--noise-std": "the noise",
    "noise_std": "noise",
    "--preset ": "the preset ",
    "--steps": "network evaluations",
}
_MOST_WORDS = 600


def as_on_the_page(text: str) -> str:
    """A message of the library in the page's words, cut where it has no end."""
    for word, instead in _PAGE_WORDS.items():
        text = text.replace(word, instead)
    return text if len(text) <= _MOST_WORDS else f"{text[:_MOST_WORDS]} ..."
