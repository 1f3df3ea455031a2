"""Benchmark, ablations and report: kept, resumed, never rerun; statistics against brute force; what a page says."""

import base64
import itertools
import json
import math
import re

import numpy as np
import pytest
import torch
from PIL import Image

from ddfm import cli, metrics
from ddfm._checks import DDFMError
from ddfm.admm import AdmmLikelihood
from ddfm.bench import baselines, charts, crops, report
from ddfm.bench.claimed import claimed_ablation, claimed_rows, read_rows
from ddfm.bench.methods import ablations, get_methods, grid
from ddfm.bench.run import Failure, PeakMemory, Plan, benchmark, read_runs
from ddfm.bench.significance import compare, holm
from ddfm.datasets import find_pairs
from ddfm.fusion import FuseConfig
from ddfm.likelihood import FusionLikelihood, em_alone
from ddfm.operators import grad


def levels(seed, shape=(48, 56)):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (shape[0] // 6 + 1, shape[1] // 6 + 1))
    return np.kron(coarse, np.ones((6, 6), int))[: shape[0], : shape[1]].astype(np.uint8)


def save(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(data).save(path)


@pytest.fixture
def root(tmp_path):
    """A data set tno-mini of seven small pairs."""
    for n in range(7):
        save(tmp_path / "tno-mini/ir" / f"{n}.png", levels(n))
        save(tmp_path / "tno-mini/vi" / f"{n}.png", levels(50 + n))
    return tmp_path


PLAIN = ("average", "maximum", "copy-A")


def run(root, names=PLAIN, plan=None, **options):
    sets = [find_pairs(root / "tno-mini")]
    config = FuseConfig(**options)
    return list(benchmark(get_methods(names, config), sets, root / "out", plan or Plan()))


# ---- running --------------------------------------------------------------------------------------


def test_records_hold_the_values_of_the_metrics(root):
    for path, record in run(root):
        assert json.loads(path.read_text()) == record
        assert record["complete"]
        for name, image in record["images"].items():
            a, b = (
                torch.from_numpy(np.asarray(Image.open(root / "tno-mini" / f / f"{name}.png"), np.float64))[None, None]
                for f in ("ir", "vi")
            )
            fuse = {"average": baselines.average, "maximum": baselines.maximum, "copy-A": baselines.copy_infrared}
            fused = (fuse[record["method"]](a / 255, b / 255) * 255).round()
            expected = metrics.evaluate(fused, a, b)
            for metric, value in expected.items():
                shown = image["values"][metric]
                assert shown == (None if value.isnan() else pytest.approx(value.item(), rel=1e-12)), metric
            picture = root / "out" / record["pictures"] / f"{name}.png"
            assert np.array_equal(np.asarray(Image.open(picture)), fused[0, 0].numpy())


def test_a_record_says_what_made_it_and_nothing_of_the_user(root):
    (_, record), *_ = run(root, ("average",))
    for key in ("machine", "threads", "versions", "settings", "seconds", "peak_memory_bytes", "convention", "tone"):
        assert record[key] is not None, key
    assert record["peak_memory_bytes"] > 10**7
    assert record["machine"].keys() == {"system", "processor", "cores"}


def test_a_record_says_its_tone_and_keeps_a_stretch(root, tiny_prior):
    options = {"prior": str(tiny_prior), "steps": 1}
    records = {r["method"]: r for _, r in run(root, ("average", "fast", "released"), Plan(limit=2), **options)}
    assert {name: r["tone"] for name, r in records.items()} == {"average": "none", "fast": "none", "released": "minmax"}
    deviations = []
    for name in ("0", "1"):
        a, b = (np.asarray(Image.open(root / "tno-mini" / f / f"{name}.png"), np.float64) for f in ("ir", "vi"))
        mean = (a + b) / 2
        deviations.append(np.rint(255 * (mean - mean.min()) / np.ptp(mean)).std())
        assert records["average"]["images"][name]["stretched"]["SD"] == pytest.approx(deviations[-1], rel=1e-5)
    assert records["average"]["stretched"]["SD"] == pytest.approx(np.mean(deviations), rel=1e-5)
    assert records["released"]["stretched"]["EN"] == pytest.approx(records["released"]["mean"]["EN"], abs=0.01)


def test_em_alone_of_any_preset(root):
    from ddfm.presets import get_preset

    plain, fast = get_methods(["em-only", "em-only:fast"])
    assert plain.settings["likelihood"] == get_preset("balanced").settings()["likelihood"]
    assert fast.settings["likelihood"] == get_preset("fast").settings()["likelihood"]
    with pytest.raises(DDFMError, match="Did you mean 'fast'"):
        get_methods(["em-only:fats"])
    assert [record["method"] for _, record in run(root, ("em-only:fast",), Plan(limit=1))] == ["em-only:fast"]


def test_what_is_there_is_not_run_again(root, monkeypatch):
    first = run(root)
    times = [path.stat().st_mtime_ns for path, _ in first]
    monkeypatch.setattr("ddfm.bench.run._measure", lambda *_: pytest.fail("run again"))
    assert [record for _, record in run(root)] == [record for _, record in first]
    assert [path.stat().st_mtime_ns for path, _ in first] == times


def test_a_stopped_run_goes_on_where_it_stopped(root, monkeypatch):
    from ddfm.bench import run as room

    whole = [record for _, record in run(root, ("average",))]
    for path in (root / "out/runs/tno-mini").iterdir():
        path.unlink()
    measure, done = room._measure, []

    def until(method, name, *rest):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(name)
        return measure(method, name, *rest)

    monkeypatch.setattr(room, "SAVE_EVERY", -1)
    monkeypatch.setattr(room, "_measure", until)
    with pytest.raises(KeyboardInterrupt):
        run(root, ("average",))
    runs = list((root / "out/runs/tno-mini").glob("*.json"))
    assert len(json.loads(runs[0].read_text())["images"]) == 3
    assert not json.loads(runs[0].read_text())["complete"]
    with pytest.raises(DDFMError, match="no complete run"):
        read_runs(root / "out")
    done.clear()
    monkeypatch.setattr(room, "_measure", lambda *a: done.append(a[1]) or measure(*a))
    again = [record for _, record in run(root, ("average",))]
    assert done == ["3", "4", "5", "6"]
    assert again[0]["mean"] == whole[0]["mean"]
    assert {k: v["sha256"] for k, v in again[0]["images"].items()} == {
        k: v["sha256"] for k, v in whole[0]["images"].items()
    }


def test_other_settings_metrics_or_sources_get_a_file_of_their_own(root, tiny_prior):
    def files():
        return {p.name for p in (root / "out/runs/tno-mini").iterdir()}

    options = {"prior": str(tiny_prior)}
    run(root, ("fast",), Plan(limit=1), **options)
    assert len(files()) == 1
    run(root, ("fast",), Plan(limit=1), seed=1, **options)
    run(root, ("fast",), Plan(limit=1, metrics=("EN",)), **options)
    run(root, ("fast",), Plan(limit=1, convention="standard"), **options)
    run(root, ("fast",), Plan(limit=2), **options)
    save(root / "tno-mini/vi/0.png", levels(99))
    run(root, ("fast",), Plan(limit=1), **options)
    assert len(files()) == 6


def test_a_folder_of_results_is_measured_like_any_method(root):
    for n in range(7):
        a, b = levels(n).astype(int), levels(50 + n)
        save(root / "theirs" / f"{n}.png", np.round((a + b) / 2).astype(np.uint8))
    records = [record for _, record in run(root, ("average", f"Theirs={root / 'theirs'}"))]
    assert records[0]["mean"] == records[1]["mean"]
    assert records[1]["seconds"] is None
    (root / "theirs/3.png").unlink()
    failure, (_, other) = run(root, (f"Theirs={root / 'theirs'}", "average"))
    assert isinstance(failure, Failure)
    assert "no image named 3" in failure.reason
    assert other["complete"]  # one failure does not stop the others
    save(root / "theirs/3.png", levels(1, (40, 56)))
    (failure,) = run(root, (f"Theirs={root / 'theirs'}",))
    assert "56x40" in failure.reason


@pytest.mark.parametrize("name", ["avarage", "balanced@1", "Theirs=/nothing/there", "=x"])
def test_unknown_methods_are_refused(name):
    with pytest.raises(DDFMError):
        get_methods([name])
    with pytest.raises(DDFMError, match="twice"):
        get_methods(["average", "average"])


def test_a_corrupt_result_is_named_and_passed_over_by_the_report(root):
    (path, _), *_ = run(root)
    path.write_text('{"tool": "ddfm bench')
    failure, *others = run(root)
    assert re.search(f"{path.name}.*Move it away", failure.reason)
    assert len(others) == 2
    path.write_text('{"tool": "ddfm bench')
    runs, notes = read_runs(root / "out")
    assert len(runs) == 2
    assert path.name in notes[0]


def test_peak_memory_sees_what_was_held_inside():
    with PeakMemory() as before:
        pass
    with PeakMemory() as peak:
        block = np.ones(25_000_000)  # 200 MB
        del block
    assert peak.bytes - before.bytes > 150e6


# ---- ablations ------------------------------------------------------------------------------------


def sources(seed=0, size=(12, 14)):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand((1, 2, *size), generator=generator, dtype=torch.float64) * 2 - 1


@pytest.mark.parametrize("phi", [0.1, 1.0])
def test_admm_without_a_prior_ends_at_the_minimum(phi):
    """From any start, begun each time at its own result: against a subgradient check by random directions."""
    s = sources()
    likelihood = AdmmLikelihood(phi, psi=0.5)
    state = likelihood.init(s)
    f = s.mean(1, keepdim=True)
    for _ in range(3000):
        f, state = likelihood.step(f, state, 0.0)
    best = likelihood.objective(f, state)
    generator = torch.Generator().manual_seed(1)
    for scale in (1e-3, 1e-2, 0.1):
        for _ in range(50):
            other = f + scale * torch.randn(f.shape, generator=generator, dtype=f.dtype)
            assert likelihood.objective(other, state) >= best - 1e-6
    for start in (s[:, :1], s[:, 1:]):
        assert likelihood.objective(start, state) >= best - 1e-6  # phi = 1: v itself is best


def test_admm_objective_is_the_sum_it_says():
    s = sources(3)
    f = sources(4)[:, :1]
    likelihood = AdmmLikelihood(0.3, psi=0.7)
    rough = (grad(f) - grad(s[:, 1:])).square().sum()
    expected = (f - s[:, :1]).abs().sum() + 0.3 * (f - s[:, 1:]).abs().sum() + 0.35 * rough
    assert likelihood.objective(f, likelihood.init(s)).item() == pytest.approx(expected.item(), rel=1e-10)


def test_one_admm_step_against_a_dense_solve():
    s, x0 = sources(5, (5, 6)), sources(6, (5, 6))[:, :1]
    likelihood = AdmmLikelihood(0.1, psi=2.0, rho=3.0)
    f, state = likelihood.step(x0, likelihood.init(s), 0.0)
    eye = torch.eye(30, dtype=torch.float64).view(30, 1, 5, 6)
    D = grad(eye).reshape(30, -1).T  # columns: gradients of unit images
    z = [
        torch.sign(x0 - s[:, k : k + 1]) * ((x0 - s[:, k : k + 1]).abs() - t / 3).clamp(min=0)
        for k, t in ((0, 1), (1, 0.1))
    ]
    right = 3 * sum(s[:, k].flatten() + z[k].flatten() for k in (0, 1)) + 2 * D.T @ D @ s[:, 1].flatten()
    expected = torch.linalg.solve(6 * torch.eye(30, dtype=torch.float64) + 2 * D.T @ D, right)
    assert torch.allclose(f.flatten(), expected, atol=1e-12)
    assert torch.allclose(state.dual[:, 0], f[:, 0] - s[:, 0] - z[0][:, 0])


def test_ablations_leave_out_what_they_say(tiny_prior):
    config = FuseConfig(preset="paper", prior=str(tiny_prior), steps=3)
    preset = config.resolve()
    rows = {m.name: m for m in ablations(preset, config)}
    assert list(rows) == ["I", "II", "III", "IV", "full"]
    assert rows["I"].settings["iterations"] == 3
    likelihoods = {name: rows[name].settings["preset"]["likelihood"] for name in ("II", "III", "IV", "full")}
    assert likelihoods["II"] == likelihoods["full"] | {"psi": 0.0}
    assert (likelihoods["III"]["phi"], likelihoods["IV"]["phi"]) == (0.1, 1.0)
    assert likelihoods["III"]["class"] == "AdmmLikelihood"
    a, b = (torch.rand(1, 1, 24, 24, generator=torch.Generator().manual_seed(k)) for k in (0, 1))
    fused = {name: m.fuse(a, b) for name, m in rows.items()}
    for one, other in itertools.combinations(fused.values(), 2):
        assert not torch.equal(one, other)
    expected, _ = em_alone(FusionLikelihood(), torch.cat([a, b], 1) * 2 - 1, 3)
    assert torch.equal(fused["I"], (expected.clamp(-1, 1) + 1) / 2)


def test_the_grid_varies_psi_and_eta_alone(tiny_prior):
    config = FuseConfig(preset="fast", prior=str(tiny_prior))
    methods = grid(config.resolve(), [0.5, 1], [0.1, 10], config)
    assert [m.name for m in methods] == ["psi=0.5,eta=0.1", "psi=0.5,eta=10", "psi=1,eta=0.1", "psi=1,eta=10"]
    base = config.resolve().settings()["likelihood"]
    for method in methods:
        likelihood = method.settings["preset"]["likelihood"]
        assert likelihood == base | {"psi": likelihood["psi"], "eta": likelihood["eta"]}


# ---- statistics -----------------------------------------------------------------------------------


def test_holm_by_its_definition():
    ps = [0.01, 0.04, 0.03, 0.005]
    assert holm(ps) == pytest.approx([0.03, 0.06, 0.06, 0.02])  # 4 x .005, 3 x .01, 2 x .03, then the running maximum
    assert holm([0.6, 0.7]) == [1, 1]
    assert holm([]) == []


def exact_signed_rank(differences):
    """Two-sided p by all sign patterns; no zeros, no ties."""
    ranks = np.argsort(np.argsort(np.abs(differences))) + 1
    low = min(ranks[differences > 0].sum(), ranks[differences < 0].sum())
    sums = np.array(
        [
            sum(r for r, s in zip(ranks, signs, strict=True) if s)
            for signs in itertools.product((0, 1), repeat=len(ranks))
        ]
    )
    return min(1.0, 2 * (sums <= low).mean())


def test_the_paired_test_is_exact_for_few_images():
    differences = np.array([0.3, -0.1, 0.5, 0.7, 0.2, 0.9, -0.05, 1.1])
    reference = {str(k): {"EN": 5 + d} for k, d in enumerate(differences)}
    other = {str(k): {"EN": 5.0} for k in range(len(differences))}
    (found,) = compare(reference, {"other": other}, ["EN"])
    assert found.p == pytest.approx(exact_signed_rank(differences))
    assert (found.n, found.difference) == (8, pytest.approx(0.4))


def test_few_images_equal_images_and_missing_values():
    values = {str(k): {"EN": float(k), "hot": None if k < 3 else 0.5} for k in range(8)}
    found = {c.metric: c for c in compare(values, {"same": values}, ["EN", "hot"])}
    assert (found["EN"].p, found["EN"].corrected) == (1.0, 1.0)
    assert found["hot"].n == 5
    assert math.isnan(found["hot"].corrected)


# ---- report ---------------------------------------------------------------------------------------


def test_claimed_rows_are_the_papers():
    assert claimed_rows("tno-dev")["DDFM"] == dict(zip(metrics.SIX, (7.06, 51.42, 2.21, 0.81, 0.49, 0.95), strict=True))
    assert claimed_rows("mri-pet-dev")["DDFM"]["EN"] == 4.64
    assert claimed_rows("roadscene-dev")["CDDFuse"]["SD"] == 54.67
    assert "CDDFuse" not in claimed_rows("msrs-dev")
    assert claimed_rows("mine") == {}
    name, rows = claimed_ablation()
    assert (name, list(rows), rows["I"]["SD"]) == ("roadscene", ["I", "II", "III", "IV", "full"], 41.82)


def test_the_wheel_is_the_share_of_the_best():
    means = {"a": {"EN": 4.0, "MSE": 10.0}, "b": {"EN": 8.0, "MSE": 40.0}, "c": {"EN": None, "MSE": 20.0}}
    assert charts.wheel(means, ["EN", "MSE"]) == {"a": [0.5, 1.0], "b": [1.0, 0.25], "c": [0.0, 0.5]}


def test_crops_lie_on_the_target_and_on_the_texture():
    a, b = np.full((400, 500), 0.2), np.full((400, 500), 0.5)
    a[300:330, 420:440] = 1
    b[20:90, 30:100] += 0.2 * np.random.default_rng(0).random((70, 70))
    found = crops.window(a, b)
    (ty, tx), (uy, ux) = found["hot target"], found["texture"]
    assert ty <= 300 and ty + crops.SIDE >= 330 and tx <= 420 and tx + crops.SIDE >= 440
    assert uy <= 20 and uy + crops.SIDE >= 90 and ux <= 30 and ux + crops.SIDE >= 100


@pytest.fixture
def reported(root):
    run(root, ("average", "maximum", "copy-A", "laplacian"))
    rows = root / "rows.json"
    rows.write_text(json.dumps({"rows": {"tno-mini": {"NetX": {"EN": 6.5, "n": 3, "unknown": 1}}}}))
    files = report.write_report(root / "out", root / "report", "average", rows)
    return root, files


def test_a_report_from_results_alone(reported):
    root, files = reported
    names = {path.name for path in files}
    assert names >= {"index.html", "tables.md", "tables.tex", "tables.csv", "tno-mini-bars.png", "tno-mini-radar.png"}
    page = (root / "report/index.html").read_text("utf-8")
    for text in ("DDFM (claimed)", "NetX (elsewhere)", "51.420", "Wilcoxon", "Convention <b>paper</b>", "tone none"):
        assert text in page, text
    pictures = re.findall(r"data:image/png;base64,([^\"]+)", page)
    assert len(pictures) > 3 + 4 * 2  # charts, and crops of sources and methods
    assert all(base64.b64decode(p).startswith(b"\x89PNG") for p in pictures)
    assert "http" not in page.replace("https://www.w3.org", "")  # nothing is fetched
    assert str(root) not in page
    mean = read_runs(root / "out")[0][0]["mean"]["EN"]
    assert f"{mean:.3f}" in (root / "report/tables.md").read_text("utf-8")


def test_a_report_ranks_own_methods_among_the_others(root):
    run(root, ("average", "maximum", "laplacian", "copy-A", "em-only"))
    rows = root / "rows.json"
    six = dict.fromkeys((*metrics.SIX, "SCD", "minVIF"), 0.5)
    rows.write_text(json.dumps({"rows": {"tno-mini": {"SeAFusion": six, "max": six}}}))
    files = report.write_report(root / "out", root / "report", "em-only", rows)
    assert root / "report/standing.md" in files
    text, page = ((root / "report" / n).read_text("utf-8") for n in ("standing.md", "index.html"))
    heads = re.findall(r"### (.*)", text)
    assert heads == [
        "Mean rank and place, convention paper",
        *(f"tno-mini: {part}" for part in ("ranks", "shares", "stretched", "printed rows")),
    ]
    assert all(f"<summary>{head}</summary>" in page for head in heads[1:])
    assert "| em-only, stretched | SeAFusion |" in text and "| em-only | CDDFuse |" in text
    assert not re.search(r"^\| (max|maximum|copy-A) ", text, re.M)


def test_a_report_does_without_the_pictures(reported):
    import shutil

    root, _ = reported
    shutil.rmtree(root / "out/images")
    shutil.rmtree(root / "tno-mini")
    report.write_report(root / "out", root / "again", "average")
    assert "hot target</h3>" not in (root / "again/index.html").read_text("utf-8")


def test_names_in_a_page_are_escaped(root):
    import shutil

    shutil.copytree(root / "tno-mini/ir", root / "<b>x")
    run(root, ("average", f"<script>={root / '<b>x'}"))
    report.write_report(root / "out", root / "report", "average")
    page = (root / "report/index.html").read_text("utf-8")
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_what_a_report_refuses(root):
    with pytest.raises(DDFMError, match="no folder runs/"):
        report.write_report(root / "out", root / "report")
    run(root)
    with pytest.raises(DDFMError, match="one of average, copy-A, maximum"):
        report.write_report(root / "out", root / "report", "balanced")
    (root / "rows.json").write_text("[]")
    with pytest.raises(DDFMError, match=r"rows\.json"):
        read_rows(root / "rows.json")
    assert not (root / "report/index.html").exists()


def test_runs_of_other_pairs_or_metrics_stay_out_of_the_table_and_are_named(root):
    run(root)
    run(root, ("average",), Plan(limit=2))
    run(root, ("laplacian",), Plan(metrics=("EN",)))
    runs, notes = read_runs(root / "out")
    assert sorted(r["method"] for r in runs) == ["average", "copy-A", "maximum"]
    assert all(len(r["images"]) == 7 for r in runs)
    text = " ".join(notes)
    assert re.search(r"average-\w+\.json: of other pairs or metrics", text)
    assert re.search(r"laplacian-\w+\.json: of other pairs or metrics", text)
    report.write_report(root / "out", root / "report")  # no balanced: no test, and a note
    assert "no significance test" in (root / "report/index.html").read_text("utf-8")


@pytest.mark.parametrize(
    "damage",
    [
        lambda r: r.pop("mean"),
        lambda r: r.update(images=[]),
        lambda r: r["images"]["0"].pop("values"),
        lambda r: r["images"]["0"]["values"].pop("EN"),
        lambda r: r.update(machine="mine"),
        lambda r: r["mean"].pop("EN"),
    ],
)
def test_results_of_a_wrong_shape_are_passed_over(root, damage):
    (path, record), *_ = run(root)
    damage(record)
    path.write_text(json.dumps(record))
    runs, notes = read_runs(root / "out")
    assert (len(runs), path.name in notes[0]) == (2, True)


def test_conventions_never_share_a_table(ddfm, root, tiny_prior):
    words = ("ablate", "tno-mini", "--prior", tiny_prior, "--steps", 2, "--limit", 1, "--metrics", "MI")
    paper = ddfm(*words)[1]
    standard = ddfm(*words, "--convention", "standard")[1]
    assert 'convention "standard"' in standard
    again = ddfm(*words)[1]

    def numbers(text):
        return re.findall(r"^(I|II|III|IV|full) +([\d.]+)", text, re.M)

    assert numbers(again) == numbers(paper)  # what is asked for is shown, not what was run last
    for (_, nats), (_, bits) in zip(numbers(paper), numbers(standard), strict=True):
        assert float(bits) == pytest.approx(float(nats) / math.log(2), abs=2e-3)


def test_rows_for_no_data_set_are_said(root):
    run(root)
    (root / "rows.json").write_text('{"rows": {"elsewhere-set": {"X": {"EN": 1}}}}')
    report.write_report(root / "out", root / "report", None, root / "rows.json")
    assert "rows of elsewhere-set" in (root / "report/index.html").read_text("utf-8")


def test_heat_maps_put_each_value_in_its_place(root, monkeypatch):
    shown = {}
    monkeypatch.setattr(charts, "heatmap", lambda v, rows, columns, metric, title: shown.update({metric: v}) or b"")
    facts = {"dataset": {"name": "d"}, "metrics": ["EN"], "convention": "paper"}
    cells = ((1, 2), (1, 0.5), (3, 0.5))
    runs = [facts | {"method": f"psi={p:g},eta={e:g}", "mean": {"EN": 10.0 * p + e}} for p, e in cells]
    report.write_heatmaps(runs, root)
    assert np.array_equal(shown["EN"], [[10.5, 12], [30.5, np.nan]], equal_nan=True)
    lines = (root / "heatmaps/d-paper.csv").read_text().splitlines()
    assert lines[1:] == ["paper,1,0.5,10.5", "paper,1,2,12.0", "paper,3,0.5,30.5"]


# ---- the commands ---------------------------------------------------------------------------------


@pytest.fixture
def ddfm(root, monkeypatch, capsys):
    monkeypatch.chdir(root)
    monkeypatch.setattr("ddfm._runtime.keep_freed_memory", lambda: None)

    def call(*words):
        monkeypatch.setattr("sys.argv", ["ddfm", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return stop.value.code or 0, captured.out + captured.err

    return call


def test_benchmark_and_report_are_two_commands(ddfm, root, tiny_prior):
    words = ("benchmark", "tno-mini", "-m", "average,copy-B,fast", "--prior", tiny_prior, "--limit", 2)
    code, text = ddfm(*words)
    assert (code, "3 results in benchmark/runs" in text) == (0, True)
    code, text = ddfm("report", "benchmark", "--reference", "fast")
    assert (code, "benchmark/report/index.html" in text) == (0, True)
    code, text = ddfm("report", "benchmark", "--reference", "none")
    assert (code, "one of average, copy-B, fast" in text) == (2, True)


def test_ablate_and_sweep_commands(ddfm, root, tiny_prior):
    code, text = ddfm("ablate", "tno-mini", "--prior", tiny_prior, "--steps", 2, "--limit", 1, "--metrics", "six")
    assert (code, "IV: no Bayesian inference: phi = 1, ADMM" in text) == (0, True)
    assert (root / "ablation/ablation.tex").is_file()
    options = ("--prior", tiny_prior, "--preset", "fast", "--limit", 1, "--metrics", "EN,VIF")
    code, text = ddfm("sweep", "tno-mini", "--psi", "0.5,50", "--eta", "1", *options)
    assert (code, (root / "sweep/heatmaps/tno-mini-paper-VIF.png").is_file()) == (0, True)
    assert len((root / "sweep/heatmaps/tno-mini-paper.csv").read_text().splitlines()) == 3
    code, text = ddfm("sweep", "tno-mini", "--psi", "a,b")
    assert (code, "--psi" in text) == (2, True)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("tno-mini", "-m", ""), "--method: got none"),
        (("nothing",), "no such folder"),
        (("tno-mini", "-m", "balancd"), "Did you mean 'balanced'"),
        (("tno-mini", "tno-mini"), "different names"),
        (("tno-mini", "--metrics", "Qab"), "Did you mean"),
        (("tno-mini", "--prior", "nothing"), "ddfm prior list"),
    ],
)
def test_benchmark_refuses(ddfm, words, says):
    code, text = ddfm("benchmark", *words)
    assert (code, says in text) == (2, True)


@pytest.mark.shared
def test_rows_of_others_are_met_through_the_whole_chain(shared, tmp_path):
    """Means of peer_rows_dev.json, made elsewhere with the field's evaluator, printed to four digits."""
    names = {"average": "average", "maximum": "max", "copy-A": "copy_infrared", "copy-B": "copy_visible"}
    rows = json.loads((shared / "peer_rows_dev.json").read_text())["rows"]["msrs-dev"]
    sets = [find_pairs(shared / "pairs/msrs-dev")]
    for _, record in benchmark(get_methods(list(names)), sets, tmp_path, Plan()):
        peer = rows[names[record["method"]]]
        for metric in metrics.parse_names("six,SCD,minVIF"):
            assert record["mean"][metric] == pytest.approx(peer[metric], abs=1.1e-4), (record["method"], metric)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"\x89PNG\r\n\x1a\n\xff", "which is no text"),
        (b"{", "which is no JSON"),
        (b"[]", "TypeError"),
        (b'{"rows": {"a": {"b": {"EN": "much"}}}}', "much"),
        (None, "a file that can be read"),
    ],
)
def test_rows_of_another_kind_of_file_are_refused(content, word, tmp_path):
    if content is not None:
        (tmp_path / "rows").write_bytes(content)
    with pytest.raises(DDFMError, match="--rows: got") as caught:
        read_rows(tmp_path / "rows")
    assert word in str(caught.value) and "codec" not in str(caught.value)
