"""Which files belong together and what the results are called: against brute force, whatever the order on disk."""

import itertools
import os
import random
import unicodedata
from pathlib import Path, PurePosixPath

import pytest

from ddfm._checks import DDFMError
from ddfm.io import SUFFIXES
from ddfm.naming import tells_apart
from ddfm.pairing import Pattern, match_folders, match_patterns, walk
from ddfm.planning import plan


def touch(root, *paths):
    """Files that nobody reads here."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"")
    return root


def planned(root, sources, output="out", **options):
    """Result below the output folder -> sources below the root."""
    jobs = plan([root / source for source in sources], root / output, **options)
    return {
        job.output.relative_to(root / output).as_posix(): tuple(p.relative_to(root).as_posix() for p in job.sources)
        for job in jobs
    }


def refused(root, sources, *words, output="out", **options):
    """The message, which has all the words; nothing was written."""
    before = sorted(root.rglob("*"))
    with pytest.raises(DDFMError) as caught:
        plan([root / source for source in sources], root / output, **options)
    for word in words:
        assert word in str(caught.value), (word, str(caught.value))
    assert sorted(root.rglob("*")) == before
    return str(caught.value)


# ---- folders and trees ----------------------------------------------------------------------------


def test_folders_by_stem_whatever_the_suffix(tmp_path):
    touch(tmp_path, "ir/a.png", "vis/a.JPG", "ir/b.tif", "vis/b.png", "vis/note.txt", "ir/.hidden.png")
    assert planned(tmp_path, ["ir", "vis"]) == {"a.png": ("ir/a.png", "vis/a.JPG"), "b.png": ("ir/b.tif", "vis/b.png")}


def test_folders_below_are_searched_only_when_asked(tmp_path):
    touch(tmp_path, "ir/a.png", "vis/a.png", "ir/day/a.png", "vis/day/a.bmp", "ir/.cache/a.png")
    assert list(planned(tmp_path, ["ir", "vis"])) == ["a.png"]
    assert planned(tmp_path, ["ir", "vis"], recursive=True, suffix=".tif") == {
        "a.tif": ("ir/a.png", "vis/a.png"),
        "day/a.tif": ("ir/day/a.png", "vis/day/a.bmp"),
    }


def random_tree(rng, root, folders):
    """The same few names in K trees, some missing; returns the relative paths of each."""
    names = ["".join(p) for n in (1, 2) for p in itertools.product("ab", repeat=n)]
    stems = [f"{folder}{name}" for folder in ("", "x/", "x/y/", "z.d/") for name in names]
    trees = []
    for folder in folders:
        chosen = [stem for stem in stems if rng.random() < 0.8]
        rng.shuffle(chosen)
        trees.append([stem + rng.choice([".png", ".TIF", ".jpeg"]) for stem in chosen])
        touch(root, *(f"{folder}/{path}" for path in trees[-1]), f"{folder}/x/readme.md")
    return trees


@pytest.mark.parametrize("seed", range(6))
def test_trees_against_brute_force(seed, tmp_path):
    """A scene is what every tree has a file of, by the path without its suffix; K = 2, 3, 4."""
    rng = random.Random(seed)
    folders = ["ir", "vis", "pet", "t2"][: 2 + seed % 3]
    trees = random_tree(rng, tmp_path, folders)
    expected = {}
    for combination in itertools.product(*trees):
        stems = {path[: path.rindex(".")] for path in combination}
        if len(stems) == 1:
            (stem,) = stems
            expected[f"{stem}.png"] = tuple(f"{f}/{p}" for f, p in zip(folders, combination, strict=True))
    skipped = []
    found = planned(tmp_path, folders, recursive=True, skipped=skipped)
    assert found == expected
    assert len(skipped) == sum(len(tree) - len(expected) for tree in trees)
    assert list(found) == sorted(found, key=lambda name: name.removesuffix(".png"))
    if any(len(tree) != len(expected) for tree in trees):
        message = refused(tmp_path, folders, "--skip-unmatched", recursive=True)
        missing = sum(len(tree) - len(expected) for tree in trees)
        assert f"{missing} unmatched names" in message


def test_the_order_on_disk_changes_nothing(tmp_path, monkeypatch):
    rng = random.Random(0)
    random_tree(rng, tmp_path, ["ir", "vis"])
    options = {"recursive": True, "skipped": [], "name": "{index:03}_{stem}"}
    first = planned(tmp_path, ["ir", "vis"], **options)
    real = os.scandir

    class Shuffled:
        def __init__(self, path):
            with real(path) as entries:
                self.entries = list(entries)
            rng.shuffle(self.entries)

        def __enter__(self):
            return iter(self.entries)

        def __exit__(self, *_):
            pass

    monkeypatch.setattr("ddfm.pairing.os.scandir", Shuffled)
    for _ in range(5):
        assert list(planned(tmp_path, ["ir", "vis"], **options).items()) == list(first.items())


def test_a_missing_partner_names_the_folder_that_lacks_it(tmp_path):
    touch(tmp_path, "t1/a.png", "t2/a.png", "pet/a.png", "t1/b.png", "t2/b.png", "pet/B.png")
    message = refused(tmp_path, ["t1", "t2", "pet"], "3 unmatched names")
    assert f"t1/b.png has no partner in {tmp_path}/pet (B.png differs in case or Unicode form)" in message
    assert f"t2/b.png has no partner in {tmp_path}/pet" in message


def test_a_name_in_another_unicode_form_is_told(tmp_path):
    """As a file copied from a Mac: the two look the same."""
    composed, decomposed = (unicodedata.normalize(form, "caf\u00e9") for form in ("NFC", "NFD"))
    touch(tmp_path, f"ir/{composed}.png", f"vis/{decomposed}.png")
    refused(tmp_path, ["ir", "vis"], "differs in case or Unicode form")


def test_two_files_of_one_stem(tmp_path):
    touch(tmp_path, "ir/day/a.png", "ir/day/a.tif", "vis/day/a.png")
    refused(tmp_path, ["ir", "vis"], "day/a.png and day/a.tif", "one file for each stem", "--pattern", recursive=True)
    found = planned(tmp_path, ["ir", "vis"], recursive=True, patterns=["{stem}.png"] * 2)
    assert found == {"day/a.png": ("ir/day/a.png", "vis/day/a.png")}


def test_a_folder_without_pictures_says_where_there_are_some(tmp_path):
    touch(tmp_path, "ir/day/a.png", "vis/day/a.png", "none/a.txt")
    refused(tmp_path, ["ir", "vis"], "no images in", "--recursive")
    assert "--recursive" not in refused(tmp_path, ["none", "vis"], "no images in")


def test_a_link_into_itself_is_refused_and_other_links_are_followed(tmp_path):
    touch(tmp_path, "ir/day/a.png", "vis/day/a.png", "vis/night/b.png", "elsewhere/b.png")
    (tmp_path / "ir/night").symlink_to(tmp_path / "elsewhere")
    assert list(planned(tmp_path, ["ir", "vis"], recursive=True)) == ["day/a.png", "night/b.png"]
    (tmp_path / "elsewhere/back").symlink_to(tmp_path / "ir")
    refused(tmp_path, ["ir", "vis"], "ir/night/back", "a link to a folder that it lies in", recursive=True)
    assert list(planned(tmp_path, ["elsewhere", "vis/night"])) == ["b.png"]  # not looked into unless asked


def test_links_that_go_nowhere_and_pipes_are_no_pictures(tmp_path):
    touch(tmp_path, "ir/a.png", "vis/a.png")
    (tmp_path / "ir/b.png").symlink_to("gone.png")
    refused(tmp_path, ["ir", "vis"], "ir/b.png", "a link that leads nowhere")
    (tmp_path / "ir/b.png").unlink()
    (tmp_path / "ir/b.png").symlink_to("b.png")
    refused(tmp_path, ["ir", "vis"], "ir/b.png", "a link that leads nowhere")
    (tmp_path / "ir/b.png").unlink()
    os.mkfifo(tmp_path / "ir/b.png")
    refused(tmp_path, ["ir", "vis"], "ir/b.png", "a pipe or a device")
    refused(tmp_path, ["ir/b.png", "vis/a.png"], "a pipe or a device", output="f.png")


def test_a_folder_that_cannot_be_read(tmp_path, monkeypatch):
    touch(tmp_path, "ir/a.png", "ir/shut/b.png", "vis/a.png")
    real = os.scandir

    def scandir(path):
        if path.name == "shut":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr("ddfm.pairing.os.scandir", scandir)
    message = "ir/shut: got Permission denied"
    with pytest.raises(DDFMError, match=message):
        plan([tmp_path / "ir", tmp_path / "vis"], tmp_path / "out", recursive=True)
    assert list(planned(tmp_path, ["ir", "vis"])) == ["a.png"]  # not asked to look there


def test_an_endless_tree_is_stopped(tmp_path, monkeypatch):
    touch(tmp_path, *(f"ir/{n}.png" for n in range(5)))
    monkeypatch.setattr("ddfm.pairing.MOST_FILES", 4)
    with pytest.raises(DDFMError, match="more than 4 pictures"):
        walk(tmp_path / "ir")


def test_the_results_of_a_tree_are_not_its_sources(tmp_path):
    touch(tmp_path, "data/ir/a.png", "data/vis/a.png", "data/ir/out/a.png", "data/ir/out/day/a.png")
    found = planned(tmp_path, ["data/ir", "data/vis"], "data/ir/out", recursive=True)
    assert list(found) == ["a.png"]
    touch(tmp_path, "more/ir/ir/a.png", "more/vis/ir/a.png")
    refused(tmp_path, ["more/ir", "more/vis"], "more/ir/a.png", "no source of the", output="more", recursive=True)


# ---- patterns -------------------------------------------------------------------------------------


def test_both_kinds_of_files_in_one_folder(tmp_path):
    touch(tmp_path, "shots/1_ir.png", "shots/1_vis.jpg", "shots/2_vis.jpg", "shots/2_ir.png", "shots/plan.png")
    found = planned(tmp_path, ["shots"], patterns=["{stem}_ir.png", "{stem}_vis.jpg"])
    assert found == {f"{n}.png": (f"shots/{n}_ir.png", f"shots/{n}_vis.jpg") for n in "12"}


def test_a_folder_for_each_scene(tmp_path):
    touch(tmp_path, *(f"scenes/{s}/{k}.png" for s in ("day", "night") for k in ("t1", "t2", "pet")), "scenes/t1.png")
    found = planned(tmp_path, ["scenes"], patterns=["{stem}/pet.png", "{stem}/t1.png", "{stem}/t2.png"])
    assert found == {f"{s}.png": tuple(f"scenes/{s}/{k}.png" for k in ("pet", "t1", "t2")) for s in ("day", "night")}


def test_patterns_each_in_its_own_folder(tmp_path):
    touch(tmp_path, "ir/FLIR_1_ir.png", "vis/DSC_1.png", "vis/FLIR_9_ir.png")
    found = planned(tmp_path, ["ir", "vis"], patterns=["FLIR_{stem}_ir.png", "DSC_{stem}.png"])
    assert found == {"1.png": ("ir/FLIR_1_ir.png", "vis/DSC_1.png")}


def test_patterns_in_every_folder_below(tmp_path):
    touch(tmp_path, *(f"s/{d}a{k}.png" for d in ("", "x/", "x/y/") for k in ("_ir", "_vis")), "s/x/.a_ir.png")
    found = planned(tmp_path, ["s"], patterns=["{stem}_ir.png", "{stem}_vis.png"], recursive=True)
    assert found == {f"{d}a.png": (f"s/{d}a_ir.png", f"s/{d}a_vis.png") for d in ("", "x/", "x/y/")}
    assert list(planned(tmp_path, ["s"], patterns=["{stem}_ir.png", "{stem}_vis.png"])) == ["a.png"]


def test_the_pattern_that_states_more_of_a_name_takes_the_file(tmp_path):
    """As thermal cameras write: x.png the photograph, x_ir.png the thermal picture."""
    touch(tmp_path, "s/a.png", "s/a_ir.png", "s/b.png", "s/b_ir.png")
    found = planned(tmp_path, ["s"], patterns=["{stem}_ir.png", "{stem}.png"])
    assert found == {f"{n}.png": (f"s/{n}_ir.png", f"s/{n}.png") for n in "ab"}


def test_wildcards(tmp_path):
    touch(tmp_path, "s/a_b_ir_0931.png", "s/a_b_vis_0932.tif", "s/a_b_vis.txt")
    found = planned(tmp_path, ["s"], patterns=["{stem}_ir_*.png", "{stem}_vis*.*"])
    assert found == {"a_b.png": ("s/a_b_ir_0931.png", "s/a_b_vis_0932.tif")}
    touch(tmp_path, "s/a_b_ir_0999.png")
    refused(tmp_path, ["s"], "0931.png and", "0999.png for 'a_b'", patterns=["{stem}_ir_*.png", "{stem}_vis*.*"])


def test_letters_that_mean_something_to_regular_expressions_or_the_shell_are_letters(tmp_path):
    touch(tmp_path, "s/[1]+(a).ir.png", "s/[1]+(a).vis.png", "s/1a.irxpng.png")
    found = planned(tmp_path, ["s"], patterns=["{stem}.ir.png", "{stem}.vis.png"])
    assert list(found) == ["[1]+(a).png"]
    assert Pattern("{stem}[1]?.png").match("a[1]?.png") == "a"
    assert Pattern("{stem}[1]?.png").match("a1.png") is None
    assert Pattern("{stem}/{stem}_ir.png").match("a/a_ir.png") == "a"
    assert Pattern("{stem}/{stem}_ir.png").match("a/b_ir.png") is None
    assert Pattern("{stem}_ir.png").match("_ir.png") is None


def brute_match(text, path, recursive):
    """The name of which the pattern, written out, is the path; by trying every part of the path."""
    folder = ""
    if recursive:
        depth = text.count("/")
        parts = path.split("/")
        folder = "".join(f"{part}/" for part in parts[: len(parts) - 1 - depth])
    rest = path.removeprefix(folder)
    for i, j in itertools.combinations(range(len(rest) + 1), 2):
        if "/" not in rest[i:j] and text.replace("{stem}", rest[i:j]) == rest:
            return folder + rest[i:j]
    return None


@pytest.mark.parametrize("recursive", [False, True])
@pytest.mark.parametrize(
    "texts",
    [
        ["{stem}_a.png", "{stem}_b.png"],
        ["{stem}.png", "{stem}_a.png"],
        ["a{stem}.png", "b/{stem}.png"],
        ["{stem}/a.png", "{stem}/b.png", "{stem}/{stem}.png"],
    ],
)
def test_patterns_against_brute_force(texts, recursive, tmp_path):
    rng = random.Random(str(texts))
    names = [f"{d}{n}.png" for d in ("", "a/", "b/", "a/b/") for n in ("a", "b", "a_a", "a_b", "b_a", "aa", "a_a_a")]
    names = [name for name in names if rng.random() < 0.9]
    touch(tmp_path, *(f"s/{name}" for name in names))
    tables = [{} for _ in texts]
    for path in names:
        fits = [k for k, text in enumerate(texts) if brute_match(text, path, recursive)]
        if fits:
            k = max(fits, key=lambda k: len(texts[k].replace("{stem}", "")))
            assert tables[k].setdefault(brute_match(texts[k], path, recursive), f"s/{path}") == f"s/{path}"
    common = set.intersection(*map(set, tables))
    expected = {f"{name}.png": tuple(table[name] for table in tables) for name in common}
    if not expected:
        refused(tmp_path, ["s"], patterns=texts, recursive=recursive, skipped=[])
    else:
        assert planned(tmp_path, ["s"], patterns=texts, recursive=recursive, skipped=[]) == expected


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("ir.png", "{stem} is what"),
        ("{name}_ir.png", "{stem} is what"),
        ("{stem}_{role}.png", "there is no other"),
        ("{stem_ir.png", "{stem} is what"),
        ("{stem}}_ir.png", "{stem} is what"),
        ("{stem}_ir", "end it in .*"),
        ("{stem}_ir.gif", ".png"),
        ("/data/{stem}.png", "below the folder"),
        ("../{stem}.png", "below the folder"),
        ("x//{stem}.png", "below the folder"),
        ("{stem}\\ir.png", "/ between folders"),
        ("**/{stem}.png", "--recursive"),
        ("", "below the folder"),
    ],
)
def test_patterns_that_cannot_be_meant(text, word, tmp_path):
    touch(tmp_path, "s/a_ir.png", "s/a_vis.png")
    refused(tmp_path, ["s"], "--pattern", word, patterns=[text, "{stem}_vis.png"])


def test_a_pattern_that_fits_nothing_shows_what_there_is(tmp_path):
    touch(tmp_path, "s/a_IR.png", "s/a_vis.png")
    refused(tmp_path, ["s"], "'{stem}_ir.png'", "a_IR.png", patterns=["{stem}_ir.png", "{stem}_vis.png"])
    refused(tmp_path, ["s"], "both fit", patterns=["{stem}_vis.png", "{stem}_vis.png"])
    refused(tmp_path, ["s"], "one for each source", patterns=["{stem}_vis.png"])
    touch(tmp_path, "t/a.png", "u/a.png")
    refused(tmp_path, ["s", "t", "u"], "2 for 3", patterns=["{stem}.png", "{stem}.png"])


def test_results_beside_their_sources_if_they_are_no_sources(tmp_path):
    touch(tmp_path, "s/a_ir.png", "s/a_vis.png")
    patterns = ["{stem}_ir.png", "{stem}_vis.png"]
    assert list(planned(tmp_path, ["s"], "s", patterns=patterns, name="{stem}_fused")) == ["a_fused.png"]
    refused(
        tmp_path,
        ["s"],
        "no source of the next run",
        output="s",
        patterns=["{stem}_ir.png", "{stem}_v*.*"],
        name="{stem}_v",
    )
    refused(tmp_path, ["s"], "s/a_ir.png", "no source of the next run", output="s", patterns=patterns, name="{stem}_ir")


# ---- names ----------------------------------------------------------------------------------------


def test_templates(tmp_path):
    touch(tmp_path, *(f"{k}/{s}.png" for k in ("ir", "vis") for s in ("a", "day/a", "day/1/b")))
    for name, expected in {
        "{stem}_fused": ["a_fused.png", "day/1/b_fused.png", "day/a_fused.png"],
        "{parent}_{stem}": ["ir_a.png", "day/1/1_b.png", "day/day_a.png"],
        "{index:03}": ["001.png", "day/1/002.png", "day/003.png"],
        "{stem}.{preset}": ["a.fast.png", "day/1/b.fast.png", "day/a.fast.png"],
        "{{{stem}}}": ["{a}.png", "day/1/{b}.png", "day/{a}.png"],
    }.items():
        assert list(planned(tmp_path, ["ir", "vis"], recursive=True, name=name, preset="fast")) == expected


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("{name}", "{stem}, {parent}, {index}, {preset}"),
        ("{stem.__class__}", "{stem}"),
        ("{}", "{stem}"),
        ("{stem!r}", "{stem}"),
        ("{stem:>200}", "{index:04}"),
        ("{index:4}", "{index:04}"),
        ("{index:0999999999}", "{index:04}"),
        ("{stem", "Expected '}'"),
        ("x/{stem}", "without folders"),
        ("../{stem}", "without folders"),
        ("/tmp/{stem}", "without folders"),
        ("x\\{stem}", "without folders"),
        ("{stem}\n", "without folders"),
        ("{stem}.png", "--suffix"),
        (".{stem}", "hidden"),
        ("", "before the suffix"),
        ("{stem}\u202e", "without folders"),
        ("{stem}" + "x" * 255, "255 bytes"),
        ("all", "1 name for 3 results"),
    ],
)
def test_templates_that_are_refused(name, word, tmp_path):
    touch(tmp_path, *(f"{k}/{s}.png" for k in ("ir", "vis") for s in "abc"))
    refused(tmp_path, ["ir", "vis"], word, name=name)


def test_a_name_for_one_scene_needs_a_folder(tmp_path):
    touch(tmp_path, "ir.png", "vis.png", "out/x")
    assert planned(tmp_path, ["ir.png", "vis.png"], name="{stem}_f") == {"ir_f.png": ("ir.png", "vis.png")}
    refused(tmp_path, ["ir.png", "vis.png"], "--name", output="f.png", name="{stem}_f")


def test_names_that_a_file_system_takes_for_one(tmp_path, monkeypatch):
    if not tells_apart(tmp_path):
        pytest.skip("a.png and A.png cannot both be made here")
    touch(tmp_path, *(f"{k}/{s}.png" for k in ("ir", "vis") for s in ("a", "A", "day/b", "DAY/b", "c")))
    assert len(planned(tmp_path, ["ir", "vis"], recursive=True)) == 5  # this one tells them apart
    monkeypatch.setattr("ddfm.naming.tells_apart", lambda folder: False)
    message = refused(tmp_path, ["ir", "vis"], "2 name(s) that differ only in case", recursive=True)
    assert "A.png and a.png" in message and "DAY/b.png and day/b.png" in message


def test_the_file_system_is_asked(tmp_path, monkeypatch):
    real = not (touch(tmp_path, "a") / "A").exists()
    (tmp_path / "a").unlink()
    assert tells_apart(tmp_path / "not/yet/there") == real
    exists = Path.exists
    monkeypatch.setattr(Path, "exists", lambda self: exists(self) or "DDFM-cASE" in self.name)
    assert not tells_apart(tmp_path)
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []


# ---- what sources and options mean together -------------------------------------------------------


@pytest.mark.parametrize(
    ("sources", "options", "word"),
    [
        (["ir"], {}, "--pattern '{stem}_ir.png'"),
        (["ir/a.png"], {}, "two or more files"),
        (["ir", "vis/a.png"], {}, "all files or all folders"),
        (["ir/a.png", "nothing.png"], {}, "no such file"),
        (["ir/a.png", "p.csv"], {}, "one manifest alone"),
        (["ir/a.png", "vis/a.png"], {"recursive": True}, "--recursive: got files"),
        (["p.csv"], {"recursive": True}, "--recursive: got a manifest"),
        (["p.csv"], {"patterns": ["{stem}.png"] * 2}, "--pattern: got a manifest"),
        (["ir", "vis"], {"columns": ["ir", "vis"]}, "--columns: got folders"),
        (["ir", "vis"], {"output": "out.png"}, "a picture's name"),
        (["ir", "vis"], {"output": "p.csv/out"}, "no folder"),
        (["ir", "vis"], {"output": "ir"}, "a source folder"),
        (["ir", "vis"], {"output": "dangling"}, "no folder"),
    ],
)
def test_sources_and_options_that_do_not_go_together(sources, options, word, tmp_path):
    touch(tmp_path, "ir/a.png", "vis/a.png")
    (tmp_path / "p.csv").write_text("ir,vis\nir/a.png,vis/a.png\n")
    (tmp_path / "dangling").symlink_to("nowhere")
    refused(tmp_path, sources, word, **options)


def test_a_file_where_a_folder_of_results_should_be(tmp_path):
    touch(tmp_path, "ir/day/a.png", "vis/day/a.png", "out/day")
    refused(tmp_path, ["ir", "vis"], "out/day is no folder", recursive=True)


def test_no_job_writes_onto_the_source_of_another(tmp_path):
    touch(tmp_path, "s/a.png", "s/b.png", "s/c.png")
    (tmp_path / "p.csv").write_text("ir,vis,output\ns/a.png,s/b.png,c\ns/c.png,s/b.png,d\n")
    refused(tmp_path, ["p.csv"], "s/c.png", "than a source", output="s")


def test_the_rooms_can_be_used_alone(tmp_path):
    touch(tmp_path, "s/x/a_ir.png", "s/x/a_vis.png", "ir/a.png", "vis/a.png")
    (group,) = match_patterns([tmp_path / "s"], [Pattern("{stem}_ir.png", True), Pattern("{stem}_vis.png", True)])
    assert (group.name, group.label) == ("x/a", str(tmp_path / "s/x/a_ir.png"))
    (group,) = match_folders([tmp_path / "ir", tmp_path / "vis"])
    assert group.sources == (tmp_path / "ir/a.png", tmp_path / "vis/a.png")
    assert walk(tmp_path, None) == sorted(
        p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if PurePosixPath(p).suffix in SUFFIXES
    )
