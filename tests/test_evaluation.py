"""Tables of scores: the means, what is left out and said, the marks, every format."""

import csv
import io
import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from ddfm import cli, color, metrics, tables
from ddfm._checks import DDFMError
from ddfm.datasets import PairedData
from ddfm.evaluation import evaluate_folder, mean_table, per_image_csv, read_grey, to_json


def levels(seed, shape=(48, 56), smooth=6):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (shape[0] // smooth + 1, shape[1] // smooth + 1))
    fine = rng.integers(-9, 10, shape)
    return (
        (np.kron(coarse, np.ones((smooth, smooth), int))[: shape[0], : shape[1]] + fine).clip(0, 255).astype(np.uint8)
    )


def save(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(data).save(path)


@pytest.fixture
def root(tmp_path):
    """ir/, vi/ and two methods: mean/ and max/."""
    for n, stem in enumerate("abc"):
        a, b = levels(n), levels(50 + n)
        save(tmp_path / "ir" / f"{stem}.png", a)
        save(tmp_path / "vi" / f"{stem}.png", b)
        save(tmp_path / "mean" / f"{stem}.png", ((a.astype(int) + b) // 2).astype(np.uint8))
        save(tmp_path / "max" / f"{stem}.png", np.maximum(a, b))
    return tmp_path


def data(root):
    return PairedData.from_folders(root / "ir", root / "vi")


def batch(array):
    return torch.from_numpy(array.astype(np.float64))[None, None]


def test_values_are_those_of_the_metrics_and_means_their_means(root):
    found = evaluate_folder(data(root), root / "mean", metrics="all")
    assert (found.name, list(found.images)) == ("mean", ["a", "b", "c"])
    images = [np.asarray(Image.open(root / folder / "b.png")) for folder in ("mean", "ir", "vi")]
    expected = metrics.evaluate(*map(batch, images), metrics="all")
    for name, value in expected.items():
        assert found.images["b"][name] == pytest.approx(value.item(), nan_ok=True), name
    assert found.means()["EN"] == pytest.approx(np.mean([row["EN"] for row in found.images.values()]))


def test_what_is_not_defined_is_left_out_counted_and_said(root):
    save(root / "ir/a.png", np.full((48, 56), 70, np.uint8))  # no hot target
    found = evaluate_folder(data(root), root / "mean")
    assert math.isnan(found.images["a"]["hot"])
    assert found.means()["hot"] == pytest.approx(np.mean([found.images[s]["hot"] for s in "bc"]))
    assert found.left_out() == {"hot": 1, "minRetention": 1}
    assert "hot: not defined on 1 of 3" in found.notes
    assert any(note.startswith("a: constant: A;") for note in found.notes)
    assert (
        json.loads(json.dumps(to_json("t", [found]), allow_nan=False))["methods"]["mean"]["images"]["a"]["hot"] is None
    )


def test_a_metric_without_any_value_has_no_mean(root):
    for stem in "abc":
        save(root / "ir" / f"{stem}.png", np.full((48, 56), 70, np.uint8))
    found = evaluate_folder(data(root), root / "mean")
    assert found.means()["hot"] is None
    assert " - " in tables.to_text(mean_table("t", [found]))


def test_constant_images_are_said_and_make_no_nan(root):
    for stem in "abc":
        for folder in ("ir", "vi", "mean"):
            save(root / folder / f"{stem}.png", np.full((48, 56), 70, np.uint8))
    found = evaluate_folder(data(root), root / "mean", metrics="six,SCD,PSNR")
    assert any(note.startswith("a: constant: fused image, A, B;") for note in found.notes)
    assert found.left_out() == {"PSNR": 3}  # infinite
    assert all(v is None or math.isfinite(v) for v in found.means().values())


def test_unmatched_files_are_listed_and_left_out(root):
    (root / "mean/c.png").rename(root / "mean/d.png")
    (root / "vi/b.png").unlink()
    found = evaluate_folder(data(root), root / "mean")
    assert list(found.images) == ["a"]
    text = " ".join(found.notes)
    assert "in mean without sources: b, d" in text
    assert "not in mean: c" in text
    assert "sources without a partner: b.png" in text


@pytest.mark.parametrize(
    ("break_it", "says"),
    [
        (lambda r: save(r / "mean/b.png", levels(1, (48, 57))), r"mean.b\.png: got 57x48 pixels, expected 56x48"),
        (lambda r: [p.unlink() for p in (r / "mean").iterdir()], "mean: got no images"),
        (lambda r: [p.rename(p.with_stem(f"z{p.stem}")) for p in (r / "mean").iterdir()], "another data set"),
        (lambda r: (r / "mean/b.png").write_bytes(b"x"), r"mean.b\.png"),
        (lambda r: [p.unlink() for p in (r / "ir").iterdir()], "no file stem in both"),
    ],
)
def test_what_is_refused(root, break_it, says):
    break_it(root)
    with pytest.raises(DDFMError, match=says):
        evaluate_folder(data(root), root / "mean")


def test_results_of_another_data_set_with_the_same_names_are_noticed(root):
    save(root / "mean/b.png", np.random.default_rng(9).integers(0, 256, (48, 56), dtype=np.uint8))
    notes = evaluate_folder(data(root), root / "mean").notes
    assert [note for note in notes if "resembles neither" in note] == [
        "b: resembles neither source; of another data set?"
    ]


def test_colour_and_sixteen_bits_become_grey_levels(root):
    colour = np.stack([levels(k) for k in (3, 4, 5)], axis=2)
    save(root / "colour.png", colour)
    r, g, b = (colour[..., k].astype(int) for k in range(3))
    assert np.array_equal(read_grey(root / "colour.png")[0, 0].numpy(), (9798 * r + 19235 * g + 3735 * b + 16384) >> 15)
    deep = levels(6).astype(np.uint16) * 257 + 100
    Image.fromarray(deep).save(root / "deep.png")
    assert np.array_equal(read_grey(root / "deep.png")[0, 0].numpy(), np.round(deep / 257))


def test_grey_is_opencvs_for_every_kind_of_colour():
    """Against exact rational arithmetic: never a level further from the true luma than the fixed point allows."""
    colours = torch.cartesian_prod(*[torch.arange(0, 256, 17)] * 3).double()
    got = color.grey_levels((colours / 255)[None])[0]
    exact = colours @ torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)
    assert (got - exact).abs().max() <= 0.5 + 255 * 1e-5 * 3
    assert got[-1] == 255


def test_a_row_gains_nothing_by_leaving_out_a_hard_image(root):
    (root / "max/b.png").unlink()
    found = [evaluate_folder(data(root), root / name) for name in ("mean", "max")]
    table = mean_table("t", found)
    expected = np.mean([found[0].images[s]["EN"] for s in "ac"])
    assert table.rows["mean"]["EN"] == pytest.approx(expected)
    assert "means over the 2 images that every row has" in table.notes


# ---- formats --------------------------------------------------------------------------------------


@pytest.fixture
def table():
    rows = {"one": {"EN": 7.0, "MSE": 10.0, "hot": None}, "two_b": {"EN": 7.1, "MSE": 8.0, "hot": 0.5}}
    rows |= {"three": {"EN": 6.0, "MSE": 12.0, "hot": 0.4}, "copy": {"EN": 7.9, "MSE": 0.0, "hot": 1.0}}
    claimed = {"other (claimed)": {"EN": 9.0}}
    return tables.ScoreTable("t_1", "paper", ("EN", "MSE", "hot"), rows, claimed, ["a note"], unmarked={"copy": ()})


def test_marks_follow_the_direction_and_leave_out_claimed_and_unmarked_rows(table):
    assert table.ranks() == {
        ("two_b", "EN"): 1,
        ("one", "EN"): 2,
        ("two_b", "MSE"): 1,
        ("one", "MSE"): 2,
        ("two_b", "hot"): 1,
        ("three", "hot"): 2,
    }


def test_a_row_may_be_unmarked_in_some_metrics_only():
    rows = {"max": {"MI": 5.0, "EN": 7.0}, "a": {"MI": 3.0, "EN": 6.0}}
    ranks = tables.ScoreTable("t", "paper", ("MI", "EN"), rows, unmarked={"max": ("MI",)}).ranks()
    assert ranks == {("a", "MI"): 1, ("max", "EN"): 1, ("a", "EN"): 2}


def test_equal_as_printed_shares_the_rank():
    rows = {"a": {"EN": 7.00001}, "b": {"EN": 7.00002}, "c": {"EN": 6.0}}
    assert tables.ScoreTable("t", "paper", ("EN",), rows).ranks() == {("a", "EN"): 1, ("b", "EN"): 1, ("c", "EN"): 2}


def test_markdown(table):
    lines = tables.to_markdown(table).splitlines()
    assert lines[2] == "| method | EN ↑ | MSE ↓ | hot ↑ |"
    assert "| two_b | **7.100** | **8.000** | **0.500** |" in lines
    assert "| one | <u>7.000</u> | <u>10.000</u> | - |" in lines
    assert "| other (claimed) | 9.000 | - | - |" in lines
    assert '- convention "paper"' in lines


def test_latex(table):
    text = tables.to_latex(table)
    assert r"two\_b & \textbf{7.100} & \textbf{8.000} & \textbf{0.500} \\" in text
    assert r"one & \underline{7.000} & \underline{10.000} & - \\" in text
    assert "convention" in text.splitlines()[2]
    assert text.count("{") == text.count("}")


def test_csv_has_every_digit_and_the_convention(table):
    rows = list(csv.DictReader(io.StringIO(tables.to_csv(table))))
    assert rows[1] == {
        "title": "t_1",
        "convention": "paper",
        "method": "two_b",
        "claimed": "no",
        "EN": "7.1",
        "MSE": "8.0",
        "hot": "0.5",
    }
    assert rows[-1]["claimed"] == "yes"


def test_per_image_csv(root):
    found = evaluate_folder(data(root), root / "mean", metrics="EN,hot", convention="standard")
    rows = list(csv.DictReader(io.StringIO(per_image_csv([found]))))
    assert [row["image"] for row in rows] == ["a", "b", "c"]
    assert float(rows[0]["EN"]) == found.images["a"]["EN"]
    assert rows[0]["convention"] == "standard"


# ---- the command ----------------------------------------------------------------------------------


@pytest.fixture
def ddfm(root, monkeypatch, capsys):
    monkeypatch.chdir(root)
    monkeypatch.setattr("ddfm._runtime.keep_freed_memory", lambda: None)

    def run(*words):
        monkeypatch.setattr("sys.argv", ["ddfm", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return stop.value.code or 0, captured.out + captured.err

    return run


def test_evaluate_command(ddfm, root):
    code, text = ddfm(
        "evaluate", "ir", "vi", "mean", "best=max", "-o", "s.csv", "-o", "s.json", "-o", "s.md", "-o", "s.tex"
    )
    assert (code, 'convention "paper"' in text) == (0, True)
    assert json.loads((root / "s.json").read_text())["methods"].keys() == {"mean", "best"}
    assert "| best |" in (root / "s.md").read_text()
    assert r"\toprule" in (root / "s.tex").read_text()
    assert len((root / "s.csv").read_text().splitlines()) == 7
    before = (root / "s.md").read_bytes()
    code, text = ddfm("evaluate", "ir", "vi", "mean", "-o", "s.md")
    assert (code, "--overwrite" in text, (root / "s.md").read_bytes() == before) == (2, True, True)


def test_one_folder_is_shown_image_by_image(ddfm):
    code, text = ddfm("evaluate", "ir", "vi", "mean", "--metrics", "EN,SD")
    lines = [line.split() for line in text.splitlines()]
    assert code == 0
    assert [line[0] for line in lines if line and line[0] in "abc"] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("ir", "vi", "mean", "mean"), "several folders named mean"),
        (("ir", "vi", "A=mean", "A=max"), "several folders named A"),
        (("ir", "vi", "mean", "-o", "/proc/self/x.md"), "can be written to"),
        (("ir", "vi", "nothing"), "no such folder"),
        (("ir", "nothing", "mean"), "no such folder"),
        (("ir", "vi", "mean", "--metrics", "EN,VIFF"), "Did you mean"),
        (("ir", "vi", "mean", "--convention", "papper"), "Did you mean 'paper'"),
        (("ir", "vi", "mean", "-o", "x.xls"), ".csv, .json, .md, .tex"),
        (("ir", "vi", "mean", "-o", "no/x.md"), "mkdir"),
    ],
)
def test_evaluate_refuses(ddfm, words, says):
    code, text = ddfm("evaluate", *words)
    assert (code, says in text) == (2, True)


def test_data_commands(ddfm, root):
    code, text = ddfm("data", "list")
    assert (code, "figshare" in text, "LLVIP" in text) == (0, True, True)
    code, text = ddfm("data", "list", root)
    assert (code, "missing: put it into" in text) == (0, True)
    assert ddfm("data", "check", root)[0] == 0
    save(root / "vi/b.png", levels(1, (50, 56)))
    code, text = ddfm("data", "check", root)
    assert (code, "size: b: 56x48 and 56x50" in text) == (1, True)
    assert ddfm("data", "check", root, "--dataset", "nto")[0] == 2
