"""CSV manifests: what spreadsheets and people write, and what nobody should have to read."""

import csv
import os
import random
import threading
import tracemalloc
from pathlib import Path

import pytest

from ddfm._checks import DDFMError
from ddfm.manifest import read_manifest
from ddfm.planning import plan


@pytest.fixture
def folder(tmp_path):
    """Pictures that nobody reads here, in data/."""
    for name in ("a", "b", "c d", 'say "x", y', "é"):
        for kind in ("ir", "vis", "pet"):
            (tmp_path / "data" / kind).mkdir(parents=True, exist_ok=True)
            (tmp_path / "data" / kind / f"{name}.png").write_bytes(b"")
    return tmp_path


def read(folder, content, **options):
    """(stems of the sources, output, where) of each scene of data/m.csv."""
    path = folder / "data/m.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    groups = read_manifest(path, **options)
    return [(*(p.relative_to(path.parent).as_posix() for p in g.sources), g.output, g.where) for g in groups]


A, B = ("ir/a.png", "vis/a.png", "", "line 2"), ("ir/b.png", "vis/b.png", "", "line 3")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("ir,vis\nir/a.png,vis/a.png\nir/b.png,vis/b.png\n", [A, B]),
        ("ir,vis\r\nir/a.png,vis/a.png\r\nir/b.png,vis/b.png", [A, B]),
        (b"\xef\xbb\xbfir,vis\nir/a.png,vis/a.png\nir/b.png,vis/b.png\n", [A, B]),
        ("ir;vis\nir/a.png;vis/a.png\nir/b.png;vis/b.png\n", [A, B]),
        ("ir\tvis\nir/a.png\tvis/a.png\nir/b.png\tvis/b.png\n", [A, B]),
        ("ir,vis\nir/a.png , vis/a.png \nir/b.png\t,vis/b.png\n", [A, B]),
        ('"ir", vis\n"ir/a.png", vis/a.png\nir/b.png, "vis/b.png"\n', [A, B]),
        ("ir,vis,,\nir/a.png,vis/a.png,,\nir/b.png,vis/b.png\n".replace("b.png\n", "b.png,,\n"), [A, B]),
        (
            "\n , \nir,vis\n\n,\nir/a.png,vis/a.png\n   \nir/b.png,vis/b.png\n\n",
            [(*A[:3], "line 6"), (*B[:3], "line 8")],
        ),
        ("output,ir,vis\nday/x,ir/a.png,vis/a.png\n,ir/b.png,vis/b.png\n", [(*A[:2], "day/x", "line 2"), B]),
        ("ir,vis,Output\nir/a.png,vis/a.png,x.tif\n", [(*A[:2], "x.tif", "line 2")]),
        ("é,vis\nir/é.png,vis/é.png\n", [("ir/é.png", "vis/é.png", "", "line 2")]),
        ("ir,vis\nir/c d.png,vis/c d.png\n", [("ir/c d.png", "vis/c d.png", "", "line 2")]),
        (
            'ir,vis\n"ir/say ""x"", y.png","vis/say ""x"", y.png"\n',
            [('ir/say "x", y.png', 'vis/say "x", y.png', "", "line 2")],
        ),
        ("pet,t1,t2\npet/a.png,ir/a.png,vis/a.png\n", [("pet/a.png", "ir/a.png", "vis/a.png", "", "line 2")]),
    ],
)
def test_what_people_write_is_read(content, expected, folder):
    assert read(folder, content) == expected


@pytest.mark.parametrize("seed", range(4))
def test_what_the_csv_module_writes_comes_back(seed, folder):
    """Rows with every kind of quoting, written by the standard library, in their order."""
    rng = random.Random(seed)
    names = [rng.choice(["a", "b", "c d", 'say "x", y', "é"]) for _ in range(20)]
    with (folder / "data/m.csv").open("w", newline="", encoding="utf-8") as file:
        quoting = rng.choice([csv.QUOTE_ALL, csv.QUOTE_MINIMAL, csv.QUOTE_NONNUMERIC])
        writer = csv.writer(
            file, quoting=quoting, delimiter=rng.choice(",;\t"), lineterminator=rng.choice(["\n", "\r\n"])
        )
        writer.writerow(["ir", "vis", "output"])
        writer.writerows([f"ir/{name}.png", f"vis/{name}.png", f"{n}, {name}"] for n, name in enumerate(names))
    found = read(folder, (folder / "data/m.csv").read_bytes())
    assert found == [(f"ir/{x}.png", f"vis/{x}.png", f"{n}, {x}", f"line {n + 2}") for n, x in enumerate(names)]


def test_columns_choose_the_sources_and_their_order(folder):
    content = "vis,place,ir\nvis/a.png,a street,ir/a.png\n"
    assert read(folder, content, columns=["ir", "vis"]) == [A]
    for columns, word in (
        (["ir", "viz"], "Did you mean 'vis'"),
        (["ir", "ir"], "each column once"),
        (["ir"], "two or more"),
    ):
        with pytest.raises(DDFMError, match="--columns") as caught:
            read(folder, content, columns=columns)
        assert word in str(caught.value)
    with pytest.raises(DDFMError, match="line 2: column place: no file 'a street'") as caught:
        read(folder, content)
    assert "--columns" in str(caught.value)


def test_absolute_paths_and_paths_from_the_manifests_folder(folder, monkeypatch):
    monkeypatch.chdir("/")
    here = folder / "data"
    ((ir, vis, *_),) = read(folder, f"ir,vis\n{here}/ir/a.png,../data/vis/a.png\n")
    assert (ir, vis) == ("ir/a.png", "../data/vis/a.png")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", ["0 column(s) of sources"]),
        ("\n\n", ["0 column(s) of sources"]),
        ("ir\nir/a.png\n", ["1 column(s) of sources: ir"]),
        ("ir,output\nir/a.png,x\n", ["1 column(s) of sources: ir"]),
        ("ir,vis\n", ["no rows"]),
        ("ir/a.png,vis/a.png\n", ["line 1", "a header such as ir,vis"]),
        ("ir,ir\nir/a.png,vis/a.png\n", ["line 1", "'ir' twice"]),
        ("ir,vis\nir/a.png\n", ["line 2", "1 cell(s) for 2 columns"]),
        ("ir,vis\n\nir/a.png,vis/a.png,x\n", ["line 3", "'x' in no named column"]),
        ("ir,vis,\nir/a.png,vis/a.png,x\n", ["line 2", "'x' in no named column"]),
        (
            "ir,vis\nir/a.png,vis/b\nir/x.png,\n",
            ["3 missing", "line 2: column vis: no file 'vis/b'", "line 3: column ir"],
        ),
        ("ir,vis\nir/a.png,\n", ["line 2: nothing in column vis"]),
        ("ir,vis\nir,vis\n", ["line 2: column ir: no file 'ir'"]),  # folders
        ("ir,vis\nir\\a.png,vis\\a.png\n", ["line 2", "between folders goes /"]),
        ('ir,vis\nir/a.png,vis/a.png\n"ir/b.png,vis/b.png\n', ["line 3", "Is a quote not closed?"]),
        ('ir,vis\n"ir/a".png,vis/a.png\n', ["line 2", "quote"]),
        ("ir,vis\nir/é.png,vis/é.png\n".encode("latin-1"), ["line 2", "no text in UTF-8"]),
        ("ir,vis\nir/a.png,vis/a.png\n".encode("utf-16"), ["line 1", "no text in UTF-8"]),
        ("ir,vis\nir/a.png,vis/a.png\n".encode("utf-16-le"), ["line 1", "no text in UTF-8"]),
        (b"\x89PNG\r\n\x1a\n\0\0", ["line 1", "Pictures come in twos or more"]),
        (
            "ir,vis\n" + "ir/a.png,vis/" + "x" * 5000 + "\n",
            ["line 2: column vis: 'vis/xxx", "...': File name too long"],
        ),
        ('ir,vis\n"' + "x" * 140000 + "\n" * 10, ["line 2", "field limit"]),
    ],
)
def test_what_cannot_be_used_is_told_with_its_line(content, words, folder):
    with pytest.raises(DDFMError) as caught:
        read(folder, content)
    for word in ["m.csv", *words]:
        assert word in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_many_missing_files_are_listed_shortly(folder):
    with pytest.raises(DDFMError, match="100 missing") as caught:
        read(folder, "ir,vis\n" + "".join(f"ir/a.png,vis/{n}\n" for n in range(100)))
    lines = str(caught.value).splitlines()
    assert (len(lines), lines[-1].strip()) == (22, "and 80 more")


def test_rows_without_their_files_are_left_out_when_asked(folder):
    content = "ir,vis\nir/a.png,vis/a.png\nir/b.png,\nir/b.png,vis/gone.png\nir/b.png,vis/b.png\n"
    assert read(folder, content, skipped=[]) == [A, (*B[:3], "line 5")]
    with pytest.raises(DDFMError, match="1 missing"):
        read(folder, "ir,vis\nir/a.png,\n", skipped=[])  # nothing is left


# ---- endless --------------------------------------------------------------------------------------


def peak_of(work):
    """Most bytes that Python had at once while ``work`` ran, and what it raised."""
    tracemalloc.start()
    try:
        with pytest.raises(DDFMError) as caught:
            work()
        return tracemalloc.get_traced_memory()[1], str(caught.value)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/urandom"])
def test_a_device_is_no_manifest(device, tmp_path, monkeypatch):
    """One line without end: refused within a bounded read."""
    if not Path(device).exists():
        pytest.skip("no such device here")
    monkeypatch.setattr("ddfm.manifest.MOST_BYTES", 1 << 20)
    peak, text = peak_of(lambda: plan([Path(device)], tmp_path / "out"))
    assert device in text and peak < 5 * (1 << 20)  # the line, and its copies while it is decoded


def endless(path, line):
    """A pipe into which a thread writes until nobody reads."""
    os.mkfifo(path)

    def write():
        try:
            with path.open("wb", buffering=0) as file:
                file.write(b"ir,vis\n")
                while True:
                    file.write(line * 100)
        except BrokenPipeError:
            pass

    threading.Thread(target=write, daemon=True).start()


@pytest.mark.parametrize("line", [b"data/ir/a.png,data/vis/a.png\n", b"\n", b'"x\n'])
def test_an_endless_pipe_is_left_after_its_limit(line, folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setattr("ddfm.manifest.MOST_LINES", 2000)
    endless(folder / "pipe", line)
    peak, text = peak_of(lambda: plan([folder / "pipe"], folder / "out"))
    assert "more than 2,000 lines" in text or "quote" in text
    assert peak < 8 * (1 << 20)
    assert not (folder / "out").exists()


def test_the_real_limits_hold(folder):
    """A file of more rows than allowed is not read to its end."""
    path = folder / "data/m.csv"
    with path.open("wb") as file:
        file.write(b"ir,vis\n" + b"\n" * 100_001)
    with pytest.raises(DDFMError, match="more than 100,000 lines"):
        read_manifest(path)


def test_a_pipe_that_ends_is_a_manifest(folder, monkeypatch):
    """Its paths are relative to the current folder."""
    monkeypatch.chdir(folder)
    os.mkfifo(folder / "pipe")
    threading.Thread(target=(folder / "pipe").write_text, args=("ir,vis\ndata/ir/a.png,data/vis/a.png\n",)).start()
    (job,) = plan([folder / "pipe"], folder / "out")
    assert [str(source) for source in job.sources] == ["data/ir/a.png", "data/vis/a.png"]


# ---- names of the results -------------------------------------------------------------------------


def names(folder, rows, header="ir,vis,output", **options):
    (folder / "data/m.csv").write_text("\n".join([header, *rows]) + "\n")
    return [
        job.output.relative_to(folder / "out").as_posix()
        for job in plan([folder / "data/m.csv"], folder / "out", **options)
    ]


def test_results_are_called_as_the_manifest_says_or_as_the_first_source(folder):
    rows = ["ir/a.png,vis/a.png,day/x", "ir/b.png,vis/b.png,y.TIF", "ir/b.png,vis/a.png,", "ir/a.png,vis/b.png,v1.2"]
    assert names(folder, rows) == ["day/x.png", "y.TIF", "b.png", "v1.2.png"]
    found = names(folder, rows, suffix=".tif", name="{index:02}_{parent}_{stem}")
    assert found == ["day/x.tif", "y.TIF", "03_ir_b.tif", "v1.2.tif"]


@pytest.mark.parametrize(
    "output",
    ["../x", "/tmp/x", "day/../../x", "x\\y", "C:x", "day//x", "day/", ".", "..", "./x", "x\x07", "a\u202eb"],
)
def test_results_stay_below_the_output_folder(output, folder):
    with pytest.raises(DDFMError, match=r"output: got .*line 2.*below the output folder"):
        names(folder, [f"ir/a.png,vis/a.png,{output}"])


@pytest.mark.parametrize("output", ["x" * 300, "x" * 300 + "/y", "day/" + "é" * 130])
def test_results_have_names_that_file_systems_take(output, folder):
    with pytest.raises(DDFMError, match="at most 255 bytes"):
        names(folder, [f"ir/a.png,vis/a.png,{output}"])
    for hidden in ("day/.x", ".day/x"):
        with pytest.raises(DDFMError, match="hidden"):
            names(folder, [f"ir/a.png,vis/a.png,{hidden}"])


def test_lines_of_old_macs_are_told(folder):
    with pytest.raises(DDFMError, match=r"lines that end in CR alone.*LF or CRLF"):
        read(folder, "ir,vis\rir/a.png,vis/a.png\r")


def test_results_of_one_name(folder):
    with pytest.raises(DDFMError, match=r"x.png: line 2 and line 4") as caught:
        names(folder, ["ir/a.png,vis/a.png,x", "ir/b.png,vis/b.png,y", "ir/b.png,vis/a.png,x.png"])
    assert "{parent}_{stem}" in str(caught.value)
    with pytest.raises(DDFMError, match=r"a.png: line 2 and line 3"):
        names(folder, ["ir/a.png,vis/a.png", "ir/a.png,vis/b.png"], "ir,vis")
    with pytest.raises(DDFMError, match=r"x.png/y.png: x.png is a result"):
        names(folder, ["ir/a.png,vis/a.png,x.png", "ir/b.png,vis/b.png,x.png/y"])
