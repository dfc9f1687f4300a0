"""Measurements of `make bench` and `make zoo`, as tables."""

from camdrift.ops import benchmarks, zoo
from camdrift.storage import files
from conftest import inside

RACES = [
    {"work": "maps", "against": "them", "place": {"px": 64, "images": 1}, "ratio": 2.0,
     "target": 3.0, "ours_wall_minimum": 0.001, "theirs_wall_minimum": 0.002},
    {"work": "maps", "against": "them", "place": {"px": 224, "images": 1}, "ratio": 8.0,
     "target": 3.0, "ours_wall_minimum": 0.1, "theirs_wall_minimum": 0.8},
    {"work": "maps", "against": "them", "place": {"px": 14}, "ratio": 5.0,
     "target": 6.0, "ours_wall_minimum": 0.01, "theirs_wall_minimum": 0.05},
    {"work": "maps", "against": "others", "place": {"px": 64}, "ratio": 0.9,
     "target": 0.95, "ours_wall_minimum": 0.01, "theirs_wall_minimum": 0.009},
]  # fmt: skip


def test_the_summary_is_of_geometric_means_with_the_worst_beside():
    first, other, last = benchmarks.summary(RACES).to_dict("records")
    assert (first["theirs / ours"], first["worst"]) == ("4.00", "2.00 (px 64, images 1)")
    assert (first["met"], first["races that met it"]) == ("yes", "1 of 2")
    # Of the same work and rival, but with another target: judged apart.
    assert (other["theirs / ours"], other["wanted"], other["met"]) == ("5.00", "6.00", "no")
    assert (last["against"], last["theirs / ours"], last["met"]) == ("others", "0.90", "no")


def test_each_race_says_where_and_how_long():
    rows = benchmarks.each(RACES).to_dict("records")
    assert [row["where"] for row in rows] == [
        "px 64, images 1", "px 224, images 1", "px 14", "px 64",
    ]  # fmt: skip
    assert [row["met"] for row in rows] == ["no", "yes", "no", "no"]
    assert (rows[1]["ours, ms"], rows[1]["theirs, ms"]) == ("100.00", "800.00")


def test_overhead_names_the_slowest_import_of_each_kind():
    text = benchmarks.overhead({
        "convolutions": [{"px": 64, "images": 8, "share": 0.9}],
        "imports": {"score": ["without a model", 0.7], "report": ["without a model", 1.4],
                    "cam": ["with a model", 2.1]},
    })  # fmt: skip
    assert "90% at 64 px and 8 images" in text
    assert "without a model 1.4 s at most (`report`); with a model 2.1 s at most (`cam`)" in text


def test_browsing_has_a_row_a_page_and_interaction():
    rows = [
        {"images": images, "page": page, "what": "layer", "first": 1.0, "seconds": images / 10000}
        for page in ("layers", "image")
        for images in (305, 5000)
    ]
    table = benchmarks.browsing(rows)
    assert table["page"].tolist() == ["layers", "image"]
    assert table["then, 5000 images"].tolist() == ["0.50", "0.50"]


def test_what_is_missed_is_said_with_its_reason():
    (work, against), why = next(iter(benchmarks.WHY.items()))
    races = [
        {"work": work, "against": against, "place": {"px": px}, "target": 2.0, "ratio": ratio}
        for px, ratio in ((64, 1.0), (224, 2.25))
    ] + [{"work": "b", "against": "c", "place": {"px": 1}, "target": 1.0, "ratio": 1.0}]
    text = benchmarks.missed(races)
    assert text.startswith(f"- {work}, against {against}: 1.50 of the 2.00 wanted; worst 1.00 (px")
    assert text.endswith(why)
    assert benchmarks.missed(races[2:]) == ""


def test_the_zoo_counts_what_is_explained_and_names_the_rest(tmp_path):
    explained = {"px": 32, "hook_points": 4, "first": "conv", "sides": "8x8 to 4x4", "empty": 0,
                 "logits_error": 2e-7, "seconds": 0.5}  # fmt: skip
    rows = [
        {"network": "whole"} | explained,
        {"network": "half"} | explained | {"empty": 2},
        {"network": "none", "refused": "UnwatchableError: scripted"},
    ]
    outcomes = {"network": "whole", "one": [1e-6, 1e-3], "other": ["a tensor (2, 9)", 1e-7]}
    (tmp_path / zoo.EXPLAINED.parent).mkdir(parents=True)
    files.write_json(tmp_path / zoo.EXPLAINED, {"count": 5, "rows": rows})
    files.write_json(tmp_path / zoo.BESIDE_PEERS, {"count": 1, "rows": [outcomes]})
    with inside(tmp_path):
        text = zoo.text()
    assert text.startswith("1 of 3 networks are explained")
    assert "2 more were not run" in text
    assert "- half: 2 of 4 maps are empty\n- none: UnwatchableError: scripted" in text
    assert "| one | 2 | 1 | 1 | 0 | 1.0e-03 |" in text
    assert "| other | 2 | 1 | 0 | 1 | 1.0e-07 |" in text
