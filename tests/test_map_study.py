"""The study of attacks on maps: its claims on paper, and on tiny data recomputed in loops."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from camdrift import settings, storage
from camdrift.analysis import results
from camdrift.analysis.evidence import Evidence
from camdrift.papers.findings import HOLDS, NOT, NOT_RUN, UNDECIDED
from camdrift.papers.zhang2020 import figures as drawings
from camdrift.papers.zhang2020 import report, study, verdicts
from camdrift.settings import FlagSettings, StatisticsSettings
from camdrift.storage import ADVERSARIAL, NOISE, OWN, SEED, Attacked, Maps, Scores
from conftest import inside
from test_changes import CORRECTED

CELLS = ("tiny_maps_dlfuzz", "tiny_maps_pgd", "tiny_moving", "tiny_keeping")
LAYERS = ["1", "2"]


def evidence(attack, noise, flips, *, cell="keeping", kind="map_keeping", model="small"):
    """Evidence of similarities (images, layers), one source an image."""
    images = pd.DataFrame({
        "image": range(len(flips)), "source": [str(i) for i in range(len(flips))],
        "success": flips, "success_8bit": flips, "l2": 1.0, "clean": 0, "label": 0,
    })  # fmt: skip
    rows = [
        (CORRECTED.reading, "cosine", CORRECTED.target, variant, 0, 1.0, image, layer,
         values[image][place], flips[image])
        for variant, values in ((ADVERSARIAL, attack), (NOISE, noise))
        for image in range(len(flips)) for place, layer in enumerate(LAYERS)
    ]  # fmt: skip
    columns = ["reading", "score", "target", "variant", "draw", "strength", "image", "layer",
               "value", "success"]  # fmt: skip
    outputs = SimpleNamespace(
        name=cell, layers=LAYERS, arrays={}, scores=pd.DataFrame(rows, columns=columns),
        images=images,
        cell=SimpleNamespace(strengths=[1.0], attack=kind, model=model),
    )  # fmt: skip
    options = StatisticsSettings(resamples=400, confidence=0.95, quantile=0.05, folds=2)
    flags = FlagSettings(
        empty_share=0.1, minimum_successes=1, minimum_images=1, minimum_sources=1,
        zero_gradients=0.0, clipped_only=0.0, noise_flips=0.0, size_difference=0.0,
    )  # fmt: skip
    return Evidence(outputs, CORRECTED, options, flags, 1)  # type: ignore[arg-type]


def columns(count, *values):
    return [list(values)] * count


@pytest.mark.parametrize(
    ("flipped", "attack", "value", "verdict"),
    [
        (20, 0.9, 1.0, HOLDS),  # as similar as under noise counts
        (20, 0.89, 0.0, NOT),
        (4, 0.95, 0.2, NOT),  # images that do not flip count against it
        (10, 0.95, 0.5, UNDECIDED),
    ],
)
def test_e1_counts_images_that_flip_and_drift_no_further_than_their_noise(
    flipped, attack, value, verdict
):
    flips = [i < flipped for i in range(20)]
    finding = verdicts.flips_unseen(
        evidence(columns(20, 0.0, attack), columns(20, 0.5, 0.9), flips), None
    )
    assert finding.value == value
    assert finding.verdict == verdict
    assert f"flips {flipped / 20:.0%} of 20 images" in finding.detail


def test_e1_is_not_decided_where_the_last_maps_are_empty_and_without_a_flip():
    attack = columns(18, 0.9, 0.9) + columns(2, 0.9, np.nan)
    noise, flips = columns(20, 0.5, 0.5), [i % 4 == 0 or i > 17 for i in range(20)]
    finding = verdicts.flips_unseen(evidence(attack, noise, flips), None)
    assert (finding.verdict, finding.detail) == (UNDECIDED, "too many empty maps in layer 2")
    finding = verdicts.flips_unseen(evidence(attack, noise, [False] * 20), None)
    assert (finding.verdict, finding.detail) == (UNDECIDED, "no image is flipped")


@pytest.mark.parametrize(
    ("mine", "theirs", "value", "verdict"),
    [(0.6, 0.8, 0.2, HOLDS), (0.8, 0.6, -0.2, NOT), (0.7, 0.7, 0.0, UNDECIDED)],
)
def test_e2_compares_drift_on_images_that_keep_their_class(mine, theirs, value, verdict):
    moving = columns(18, mine, mine) + columns(2, 0.0, 0.0)  # the last two are flipped
    flips = [i > 17 for i in range(20)]
    other = evidence(
        columns(20, theirs, theirs), columns(20, 1.0, 1.0), [i % 2 == 0 for i in range(20)],
        cell="dlfuzz", kind="dlfuzz",
    )  # fmt: skip
    own = evidence(moving, columns(20, 1.0, 1.0), flips, kind="map_moving")
    finding = verdicts.drifts_unflipped(own, other)
    assert finding.value == pytest.approx(value)
    assert finding.verdict == verdict
    assert finding.images == 18
    assert "18 of 20 images keep their class, of which 'dlfuzz' flips 50%" in finding.detail
    assert "100% of its L2 norm" in finding.detail


def test_e2_asks_for_the_size_of_dlfuzz_and_for_images_that_keep_their_class():
    arms = columns(4, 0.5, 0.5), columns(4, 0.5, 0.5)
    moving = evidence(*arms, [False] * 4, kind="map_moving")
    assert verdicts.drifts_unflipped(moving, None).verdict == NOT_RUN
    pgd = evidence(*arms, [True] * 4, cell="other", kind="pgd")
    finding = verdicts.drifts_unflipped(moving, pgd)
    assert finding.verdict == NOT_RUN
    assert finding.detail.endswith("a cell of DLFuzz, got 'other', which is of pgd")
    assert verdicts.moved(moving, pgd).values.shape == (0, 2)
    dlfuzz = evidence(*arms, [True] * 4, kind="dlfuzz")
    flipped = evidence(*arms, [True] * 4, kind="map_moving")
    assert verdicts.drifts_unflipped(flipped, dlfuzz).detail == "no image keeps its class"
    other = evidence(*arms, [True] * 4, kind="dlfuzz", model="another")
    assert verdicts.drifts_unflipped(moving, other).verdict == NOT_RUN
    assert verdicts.moved(moving, other).values.shape == (0, 2)


def test_a_share_of_all_images_has_the_interval_of_its_sources():
    """Three images of two pictures decide nothing, whatever their resamples say."""
    three = evidence(columns(3, 0.9, 0.9), columns(3, 0.5, 0.5), [True] * 3)
    three.results.images["source"] = ["a", "a", "b"]
    finding = verdicts.flips_unseen(three, None)
    assert (finding.value, finding.verdict) == (1.0, UNDECIDED)
    assert finding.low == pytest.approx(1 - (1 - 0.025 ** (1 / 2)))


def test_the_other_attack_is_compared_on_the_same_images():
    """It may have attacked more of them, and others first."""
    other = evidence(columns(4, 0.9, 0.9), columns(4, 1, 1), [True] * 4, kind="dlfuzz")
    other.results.scores.loc[other.results.scores["image"] == 2, "value"] = 0.3
    own = evidence(columns(4, 0.1, 0.1), columns(4, 1, 1), [False] * 4, kind="map_moving")
    part = replace(own, of=np.array([False, False, True, True]))
    assert verdicts.moved(part, other).values[:, 0].tolist() == pytest.approx([0.2, 0.8])


@pytest.fixture
def tables(tiny):
    with inside(tiny.folder):
        yield results.load("tiny_maps")


def part(kind, cell, stage):
    return storage.read(kind, storage.cell_folder("tiny_maps", cell, stage))


def similarities(cell, target):
    """Similarity at strength 1 by (variant, image, layer), of the deciding method."""
    rows = part(Scores, cell, "score").values.query(
        "score == 'cosine' and strength == 1 and draw == 0 and target == @target"
    )
    rows = rows[rows["method"] == rows["method"].iloc[0]]
    return {(r.variant, r.image, r.layer): r.value for r in rows.itertuples()}


def test_all_cells_attack_the_same_images_within_one_size(tiny, tables):
    first = part(Attacked, CELLS[0], "attack").images.set_index("image")
    assert len(first) == 40
    for cell in CELLS[1:]:
        images = part(Attacked, cell, "attack").images.set_index("image")
        assert list(images.index) == list(first.index)
        assert list(images["id"]) == list(first["id"])
        assert (images[["l2", "linf"]] <= first[["l2", "linf"]] + 1e-6).all(axis=None)
    tests = storage.read(storage.ImageSet, storage.set_folder("digits")).tests
    assert len(tests) == 50
    assert list(first.index) != tests["image"].tolist()[:40]  # drawn, not the first


@pytest.mark.parametrize("target", [OWN, SEED])
@pytest.mark.parametrize("cell", CELLS)
def test_drift_is_that_of_the_scores(tables, cell, target):
    """In loops: by arm, group and layer."""
    known = similarities(cell, target)
    clean = part(Attacked, cell, "attack").images.set_index("image")["clean"]
    maps = part(Maps, cell, "cam").select().query("target == @target and strength == 1")
    rows = tables["drift"].query("cell == @cell and target == @target")
    arms = [ADVERSARIAL, NOISE, *("negated", "sign_shuffled", "permuted", "phase_randomised")]
    assert set(rows["arm"]) == set(arms)
    for arm in arms:
        changed = maps[(maps["variant"] == arm) & (maps["draw"] == 0)].set_index("image")
        flips = {i: changed["prediction"][i] != clean[i] for i in clean.index}
        for group, wanted in (("all", (True, False)), ("flipped", (True,)),
                              ("not flipped", (False,))):  # fmt: skip
            part_rows = rows[(rows["arm"] == arm) & (rows["group"] == group)].set_index("layer")
            members = [i for i in clean.index if flips[i] in wanted]
            layers = {layer for _, _, layer in known}
            assert len(part_rows) == (len(layers) + 1 if members else 0)
            for layer in layers if members else ():
                values = [1 - known[arm, i, layer] for i in members]
                empty = np.isnan(values).mean()
                value = part_rows["drift"][layer]
                assert part_rows["images"][layer] == len(members)
                if empty > 0.1:
                    assert np.isnan(value)
                else:
                    assert value == pytest.approx(np.nanmean(values), abs=6e-4)
            if members:
                share = sum(flips.values()) / len(flips)
                assert part_rows["flipped"].iloc[0] == pytest.approx(share, abs=6e-4)


def test_means_over_layers_are_over_the_same_layers_for_all(tables):
    rows = tables["drift"].query("group == 'all'")
    layers = rows[rows["layer"] != "mean"]
    whole = layers.groupby("layer")["drift"].apply(lambda column: column.notna().all())
    common = set(whole.index[whole])
    assert common
    for (cell, arm, target), own in rows.groupby(["cell", "arm", "target"]):
        known = similarities(cell, target)
        images = sorted({image for _, image, _ in known})
        means = [np.nanmean([1 - known[arm, image, layer] for layer in common]) for image in images]
        drift = own.set_index("layer")["drift"]
        assert drift["mean"] == pytest.approx(np.mean(means), abs=6e-4)


def test_claims_by_layer_are_those_of_the_scores(tables):
    rows = tables["by_layer"].set_index(["claim", "target", "layer"])["value"]
    keeping, moving = (part(Attacked, cell, "attack").images.set_index("image")["success"]
                       for cell in ("tiny_keeping", "tiny_moving"))  # fmt: skip
    for target in (OWN, SEED):
        kept, moved, other = (similarities(cell, target) for cell in
                              ("tiny_keeping", "tiny_moving", "tiny_maps_dlfuzz"))  # fmt: skip
        layers = {layer for _, _, layer in kept}
        for layer in layers:
            counts, differences = [], []
            for image, flips in keeping.items():
                pair = [kept[variant, image, layer] for variant in (ADVERSARIAL, NOISE)]
                unknown = flips and np.isnan(pair).any()
                counts.append(np.nan if unknown else float(flips and pair[0] >= pair[1]))
            for image, flips in moving.items():
                if not flips:
                    differences.append(other[ADVERSARIAL, image, layer]
                                       - moved[ADVERSARIAL, image, layer])  # fmt: skip
            for claim, values in (("E1", counts), ("E2", differences)):
                value = rows[claim, target, layer]
                judged = np.array(values)[keeping.to_numpy()] if claim == "E1" else values
                if np.isnan(judged).mean() <= 0.1:
                    assert value == pytest.approx(np.nanmean(values), abs=6e-4)
                else:
                    assert np.isnan(value)


def test_each_claim_is_judged_on_the_cell_whose_attack_decides_it(tables):
    claims = tables["claims"].set_index("id")
    assert list(claims.index) == [claim.id for claim in study.CLAIMS]
    assert "cell 'tiny_keeping'" in claims["rests_on"]["E1"]
    assert "cell 'tiny_moving'" in claims["rests_on"]["E2"]
    assert not claims["verdict"].eq(NOT_RUN).any()
    switches = tables["switches"].set_index("claim")
    assert switches["cell"].to_dict() == {"E1": "tiny_keeping", "E2": "tiny_moving"}
    for claim in claims.index:
        assert claims["value"][claim] == switches["value"][claim]
    readings = tables["readings"].groupby("claim")["reading"].apply(list)
    assert readings["E1"] == ["correct", "survives 8 bit", "own class", "clean class"]
    assert readings["E2"] == readings["E1"]
    by_layer = tables["by_layer"].set_index(["claim", "target"])
    last = by_layer.loc[("E1", OWN)].iloc[-1]
    assert np.isnan(last["value"]) or last["value"] == claims["value"]["E1"]


def test_figures_show_each_attack_and_the_first_ones_controls(tables):
    names = [name for *_, name in report.shown(tables)]
    assert names[-4:] == list(CELLS)
    assert names[0] == "tiny_maps_dlfuzz: noise"
    scatter = drawings.drift_against_flip(tables).table
    assert scatter["series"].tolist() == names
    row = report.mean_drift(tables, "tiny_keeping")
    assert scatter.set_index("series").loc["tiny_keeping", ["x", "y"]].tolist() == [
        row["flipped"], row["drift"]
    ]  # fmt: skip
    matrix = drawings.map_drift(tables, SEED).table
    assert matrix["series"].str.startswith("tiny_moving, not flipped (").any()
    assert (matrix.groupby("series")["x"].nunique() == matrix["x"].nunique()).all()


def test_the_report_and_the_readme_hold_claims_figures_and_layers(tiny, tables):
    with inside(tiny.folder):
        page = storage.report("tiny_maps").read_text()
        readme = storage.results("tiny_maps", "README.md").read_text()
        figures = {file.stem for file in storage.results("tiny_maps", "figures").iterdir()}
    assert figures == {"drift_against_flip", "map_drift_clean_class", "map_drift_own_class",
                       "maps_of_one_image"}  # fmt: skip
    for text in ("E1", "E2", "tiny_maps_dlfuzz: noise", "Layer by layer", "phases randomised"):
        assert text in page
    assert all(f"figures/{name}.png" in readme for name in figures)
    rows = report.layers(tables)
    assert rows.columns[-2:].tolist() == ["each image's own class", "the clean image's class"]
    assert len(rows) == len(tables["by_layer"]) / 2


def test_map_moving_is_not_flagged_for_few_flips(tables):
    flags = tables["flags"]
    assert "few successes" not in set(flags.loc[flags["cell"] == "tiny_moving", "flag"])
    assert set(flags.loc[flags["cell"] == "tiny_moving", "touches"]) <= {"E2"}
    assert "few successes" in set(flags.loc[flags["cell"] == "tiny_keeping", "flag"])
    assert set(flags.loc[flags["cell"] == "tiny_maps_pgd", "touches"]) <= {""}


def test_flags_of_dlfuzz_touch_the_claim_that_is_judged_beside_it(tables):
    flags = tables["flags"].query("cell == 'tiny_maps_dlfuzz'").set_index("flag")["touches"]
    assert flags["empty maps"] == "E2"
    assert flags["few successes"] == ""  # E2 is of images that are not flipped
    claims = tables["claims"].set_index("id")["flags"]
    assert "empty maps" in claims["E2"]


@pytest.mark.parametrize(
    ("images", "told"),
    [(0, "greater than or equal to 1"), (None, "at most 40, as many as cells.tiny_maps_dlfuzz"),
     (41, "at most 40")],
)  # fmt: skip
def test_a_cell_attacks_no_image_that_the_one_it_is_within_does_not(tiny, images, told):
    content = tiny.settings.model_dump(mode="json")
    content["cells"]["tiny_moving"]["images"] = images
    with pytest.raises(ValueError, match=told):
        settings.Settings.model_validate(content)


def test_a_study_without_a_flag_has_an_empty_table(tiny, monkeypatch):
    none = pd.DataFrame(columns=["flag", "value", "limit", "touches", "protocols", "text"])
    monkeypatch.setattr(study.flags, "cell_flags", lambda *arguments: none)
    of = SimpleNamespace(cell=SimpleNamespace(attack="map_moving"))
    flags = study._flags(of, {}, [], tiny.settings)
    assert list(flags) == list(none)
    assert flags.empty


def test_attacks_that_flip_all_or_none_leave_no_gap_in_the_tables(tiny, tables):
    """The whole study again, with every image flipped by map-moving and none by map-keeping."""
    with inside(tiny.folder):
        plan = results.study_settings("tiny_maps", tiny.settings, study.READS)
        read = results.read

        def turned(*arguments, **options):
            of = read(*arguments, **options)
            if of.name in ("tiny_moving", "tiny_keeping"):
                flips = of.name == "tiny_moving"
                of.images["success"] = of.every["success"] = flips
            return of

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(study.results, "read", turned)
            other = study.tables("tiny_maps", plan)
    verdict = other["claims"].set_index("id")["detail"]
    assert verdict.to_dict() == {"E1": "no image is flipped", "E2": "no image keeps its class"}
    assert set(other) == set(tables)
