"""Ranks, shares and what is an opponent, against values counted by hand."""

import pytest

from ddfm.bench.standing import (
    RANKED,
    Field,
    mean_ranks,
    plain_markdown,
    printed_table,
    rank_table,
    ranks,
    share_table,
    shares,
    standing_tables,
    stretched_table,
    summary,
)

BASE = dict.fromkeys((*RANKED, "MI", "VIF", "EN"), 1.0)
#: SeAFusion has no retention, as rows measured elsewhere.
SEA = {m: 2.0 for m in BASE if m not in ("hot", "texture")}


def field(**changes):
    options = {
        "own": {"balanced": BASE | {"SD": 3.0, "SCD": 1.8, "hot": 0.5}},
        "others": {"laplacian": BASE, "maximum": dict.fromkeys(BASE, 9.0), "copy-A": dict.fromkeys(BASE, 9.0)},
        "elsewhere": {"SeAFusion": SEA, "laplacian": BASE, "max": BASE, "copy_infrared": BASE, "copy_visible": BASE},
    }
    return Field("tno-dev", **options | changes)


def cells(table, name):
    return next(dict(zip(table.head, row, strict=True)) for row in table.rows if row[0] == name)


def test_ranks_share_ties_and_pass_over_what_is_missing():
    rows = {"a": {"SD": 2.0}, "b": {"SD": 3.0}, "c": {"SD": 2.0}, "d": {"SD": None}, "e": {}}
    assert ranks(rows, "SD") == {"b": 1, "a": 2.5, "c": 2.5}
    assert ranks({"a": {"MSE": 2.0}, "b": {"MSE": 3.0}}, "MSE") == {"a": 1, "b": 2}  # lower is better


def test_mean_ranks():
    row = {"SD": 1.0, "Qabf": 2.0}
    # SD: y 1, z 2, x 3; Qabf: x and y share 1.5, z 3
    assert mean_ranks({"x": row, "y": row | {"SD": 3.0}, "z": row | {"SD": 2.0, "Qabf": 1.0}}) == {
        "x": 2.25,
        "y": 1.25,
        "z": 2.5,
    }
    assert str(mean_ranks({"x": {}})["x"]) == "nan"


def test_opponents_are_what_one_can_pick_instead():
    assert list(field().opponents()) == ["laplacian", "SeAFusion"]
    assert "maximum" in field(maximum_counts=True).opponents()
    only_elsewhere = field(others={}).opponents()
    assert list(only_elsewhere) == ["laplacian", "SeAFusion"]  # max and copies are none under any name


def test_rank_table_counted_by_hand():
    table = rank_table(field(), "balanced")
    own = cells(table, "balanced")
    # among SeAFusion and laplacian. SD: first; SCD: second; Qabf, SSIM, minVIF: tied with laplacian, SeAFusion ahead
    assert [own[m] for m in RANKED] == ["1", "2.5", "2.5", "2", "2.5", "2", "1.5"]
    assert own["mean rank"] == "2.00 (2 of 3)"
    assert own["without hot and texture"] == "2.10 (2 of 3)"
    assert cells(table, "SeAFusion")["mean rank"] == "1.20 (1 of 3)"
    assert cells(table, "SeAFusion")["hot"] == "-"
    assert [row[0] for row in rank_table(field(), "").rows] == ["balanced"]


def test_own_methods_do_not_rank_each_other():
    two = field(own={"balanced": BASE, "fast": dict.fromkeys(BASE, 5.0)})
    alone = field(own={"balanced": BASE})
    assert cells(rank_table(two, "balanced"), "balanced") == cells(rank_table(alone, "balanced"), "balanced")
    assert cells(summary([two, alone]), "fast")["tno-dev"] == "-"  # the second data set has none; heads are by name


def test_shares_say_what_is_missed():
    beside_sea, beside_laplacian = shares(field())
    assert (beside_sea.other, beside_laplacian.other) == ("SeAFusion", "laplacian")
    assert beside_sea.values["SCD"] == pytest.approx(0.9)
    assert "hot" not in beside_sea.values
    assert set(beside_sea.missed()) == set(SEA) - {"SD"}
    assert beside_laplacian.values["hot"] == 0.5
    assert beside_laplacian.missed() == []  # only SCD, Qabf and minVIF are asked for
    row = share_table(field()).rows[0]
    assert "90.0 !" in row and row[-1] == "1 of 8"


def test_share_of_nothing_is_no_share():
    found = shares(field(elsewhere={"SeAFusion": SEA | {"SCD": 0.0, "VIF": None}}))
    assert {"SCD", "VIF"}.isdisjoint(found[0].values)


def test_a_stretch_stands_beside_those_that_stretch():
    stretched = field(stretched={"balanced": {"SD": 1.9, "EN": 2.0}})
    found = next(s for s in shares(stretched) if s.own == "balanced, stretched")
    assert (found.other, found.values["SD"], found.values["EN"]) == ("SeAFusion", 0.95, 1.0)
    assert found.missed() == []
    assert cells(stretched_table(stretched), "balanced, stretched")["SD"] == "1.900"
    assert not stretched_table(field(elsewhere={})).rows
    assert all("stretched" not in s.own for s in shares(field()))  # results from before it was kept


def test_printed_rows_need_to_be_reached_in_full():
    printed = {"DDFM": {"EN": 1.0, "SD": 3.1, "MI": 1.0, "VIF": 1.0, "Qabf": 1.0, "SSIM": 1.0}, "FusionGAN": BASE}
    table = printed_table(field(printed=printed))
    assert [row[:2] for row in table.rows] == [["balanced", "DDFM"]]
    assert cells(table, "balanced")["SD"] == "96.8 !"
    assert cells(table, "balanced")["reached"] == "5 of 6"


def test_tables_need_own_methods_and_opponents():
    assert [t.title.split(": ")[1] for t in standing_tables(field(), "balanced")] == ["ranks", "shares", "stretched"]
    assert standing_tables(field(own={}), "balanced") == []
    assert standing_tables(field(others={}, elsewhere={}), "balanced") == []
    text = plain_markdown(rank_table(field(), "balanced"))
    assert "| balanced | 1 | 2.5 |" in text and text.endswith("\n")
