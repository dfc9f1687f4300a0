"""Published against corrected on the tiny study: switches, controls, groups, claims."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from camdrift import settings, storage
from camdrift.analysis import flags, flips, layers, results, tables
from camdrift.explain import packing
from camdrift.models import loading
from camdrift.papers import claims, findings
from camdrift.papers.renkhoff2022 import report, study
from camdrift.perturbations import variants
from camdrift.scores import comparison
from camdrift.storage import Attacked, Maps, Noise, Record, Scores
from conftest import inside

CELL = "tiny_dlfuzz"


def part(kind, stage, cell=CELL):
    return storage.read(kind, storage.cell_folder("tiny", cell, stage))


@pytest.fixture(autouse=True)
def _in_the_study(tiny):
    with inside(tiny.folder):
        yield


@pytest.fixture(scope="module")
def outputs(tiny) -> results.Tables:
    with inside(tiny.folder):
        return results.load("tiny")


@pytest.fixture(scope="module")
def protocols(tiny) -> dict[str, settings.Protocol]:
    return settings.protocols(tiny.settings.protocols)


@pytest.fixture(scope="module")
def scored(tiny) -> pd.DataFrame:
    with inside(tiny.folder):
        return part(Scores, "score").values


def test_a_protocol_differs_from_corrected_by_its_own_switches_alone(tiny, protocols):
    corrected = protocols["corrected"].model_dump()
    published = protocols["as_published"].model_dump()
    assert all(published[switch] != corrected[switch] for switch in corrected)
    alone = {name.removeprefix("only_"): p for name, p in protocols.items() if "only_" in name}
    assert set(alone) == set(corrected)
    for switch, protocol in alone.items():
        assert protocol.model_dump() == corrected | {switch: published[switch]}


def test_nothing_is_identity_under_corrected_and_not_as_published(outputs, protocols):
    rows = outputs["controls"].query("cell == @CELL and variant == 'nothing' and layer != 'mean'")
    least = rows.groupby("protocol")["least"].min()
    for name, protocol in protocols.items():
        exact = protocol.score == "logits"
        assert (abs(least[name] - 1) < 1e-6) == exact, name


def test_unrelated_images_are_a_floor(outputs):
    rows = outputs["controls"].query("cell == @CELL and layer == 'mean' and target == 'seed_class'")
    rows = rows[rows["protocol"] == "corrected"].set_index("variant")["mean"]
    floor = rows["unrelated"].mean()
    assert 0 < floor < rows["noise"].mean() < rows["nothing"]
    jet = outputs["controls"].query("protocol == 'only_similarity' and variant == 'unrelated'")
    assert jet["mean"].mean() > floor


def test_every_control_is_scored(outputs, tiny):
    kinds = set(part(Noise, "noise").facts["controls"])
    rows = outputs["controls"].query("cell == @CELL and protocol == 'corrected'")
    others = {"nothing", "unrelated", "noise", "adversarial", "raised_noise"}
    others |= {"below_boundary", "above_boundary"}
    assert kinds | others == set(rows["variant"])
    assert rows[rows["variant"].isin(kinds)]["flipped"].between(0, 1).all()


def test_published_levels_one_half_and_one_are_the_same_picture(scored, protocols):
    for name, same in (("as_published", True), ("only_strengths", True), ("corrected", False)):
        rows = scored[
            (scored["reading"] == protocols[name].reading) & (scored["score"] == "cosine")
            & (scored["target"] == protocols[name].target)
            & (scored["variant"] == "adversarial") & (scored["method"] == "GradCAM")
        ]  # fmt: skip
        wide = rows.pivot(index=["image", "layer"], columns="strength", values="value")
        assert np.allclose(wide[0.5], wide[1.0], equal_nan=True) == same, name


def test_target_and_threshold_alone_share_the_corrected_scores(protocols, scored):
    readings = {protocols[name].reading for name in ("corrected", "only_target", "only_threshold")}
    assert len(readings) == 1
    assert set(scored["reading"]) == {protocol.reading for protocol in protocols.values()}


@pytest.mark.parametrize("first", ["as_published", "only_score"])
def test_a_protocol_that_explains_probabilities_can_decide_with_several_methods(
    tiny, protocols, first
):
    plan = tiny.settings.cells[CELL]
    attacked, arms = variants.read(plan, CELL, [protocols[first]])
    model = loading.load(plan.model, micro_batch=32)
    facts = attacked.images.set_index("image")
    names = ["GradCAM", "LayerCAM"]
    packed = packing.explain(model, arms, facts["clean"], facts["success"], methods=names)
    examples, pictures = variants.examples(attacked, arms, count=1)
    layers = packing.layer_table(model)
    maps = Maps(packed.values, packed.maxima, packed.rows, layers, pictures, examples)
    partners = pd.DataFrame(index=facts.index)
    drift = comparison.drift(maps, [protocols[first]], partners, size=32, beside=["ssim"])
    assert set(drift["method"]) == set(names)
    cosine = drift.query("score == 'cosine'").groupby("method", observed=True)["value"]
    assert (cosine.count() > 0).all()


def test_groups_twin(outputs, protocols):
    """Excess of the flipped, explained for their own class, at strength 2: by hand."""
    maps, values = (
        part(Maps, "cam").select(),
        part(Scores, "score").values.query("method == 'GradCAM'"),
    )
    clean = part(Attacked, "attack").images.set_index("image")["clean"]
    recipe = protocols["corrected"].recipe  # noqa: F841 in the query
    rows = maps.query("variant == 'adversarial' and strength == 2 and recipe == @recipe "
                      "and target == 'own_top1'")  # fmt: skip
    flipped = [row.image for row in rows.itertuples() if row.prediction != clean[row.image]]
    reading = protocols["corrected"].reading  # noqa: F841 in the query
    known = values.query("reading == @reading and score == 'cosine' and target == 'own_top1' "
                         "and strength == 2 and draw == 0 and layer == '2-1'")  # fmt: skip
    value = known.set_index(["variant", "image"])["value"]
    differences = [value["noise", i] - value["adversarial", i] for i in flipped]
    row = outputs["groups"].query(
        "cell == @CELL and variant == 'adversarial' and strength == 2 and layer == '2-1' "
        "and group == 'flipped_own_class'"
    ).squeeze()  # fmt: skip
    assert row["images"] == len(flipped)
    assert row["excess"] == pytest.approx(np.nanmean(differences), abs=6e-4)
    assert row["mean"] == pytest.approx(
        np.nanmean([value["adversarial", i] for i in flipped]), abs=6e-4
    )


def test_the_three_groups_part_the_images(outputs, tiny):
    images = len(part(Attacked, "attack").images)
    rows = outputs["groups"].query("cell == @CELL and layer == 'mean'")
    for _, part_ in rows.groupby(["variant", "strength"]):
        count = part_.set_index("group")["images"]
        assert count.get("not_flipped", 0) + count.get("flipped_seed_class", 0) == images
        assert count.get("flipped_seed_class", 0) == count.get("flipped_own_class", 0)


def test_the_factorial_is_paired(outputs):
    rows = outputs["factorial"].query("cell == @CELL")
    assert rows["images"].nunique() == 1
    # Where no map is empty, the mean of paired differences is the difference of the means.
    arms = rows[rows["arm"].isin(["attack", "noise", "attack - noise"]) & (rows["layer"] != "mean")]
    keys = ["target", "flipped", "layer"]
    full = arms.groupby(keys)["n"].transform("min") == arms["images"]
    mean = arms[full].pivot(index=keys, columns="arm", values="mean")
    assert len(mean) >= 4
    difference = mean["attack"] - mean["noise"]
    np.testing.assert_allclose(mean["attack - noise"], difference, atol=0.002)  # of rounding
    rows = rows[rows["layer"] == "mean"]
    size = rows.drop_duplicates(["arm", "flipped"]).set_index(["arm", "flipped"])["size_grey"]
    assert size["attack", False] == pytest.approx(size["noise", False], rel=0.01)
    assert size["noise", True] > size["noise", False]


def test_means_over_layers_are_of_the_same_layers(outputs):
    """Whichever class maps explain: what is not flipped has the same maps under both policies."""
    factorial = outputs["factorial"].query("cell == @CELL")
    arms = factorial[
        factorial["arm"].isin(["attack", "noise"]) & ~factorial["flipped"].astype(bool)
    ]
    policies = arms.pivot(index=["arm", "layer"], columns="target", values=["mean", "n"])
    common = policies["mean"].dropna()
    assert set(common.reset_index()["layer"]) > {"mean"}
    np.testing.assert_array_equal(common["own_top1"], common["seed_class"])
    np.testing.assert_array_equal(policies["n"].loc[common.index].nunique(axis=1), 1)
    # A mean over layers is that of the layers which both policies decide, if no map is empty.
    wide = factorial.pivot(
        index=["target", "arm", "flipped"], columns="layer", values=["mean", "n"]
    )
    layers = wide["mean"].drop(columns="mean").dropna(axis=1)
    full = (wide["n"][layers.columns].eq(factorial["images"].iloc[0], axis=0)).all(axis=1)
    assert full.any()
    np.testing.assert_allclose(
        layers[full].mean(axis=1), wide["mean"].loc[full, "mean"], atol=0.002
    )


def gapped(rng, *, images=40, layers=3, gaps=()):
    """Similarities of images at layers, the first images' NaN at some layers."""
    values = rng.uniform(0.2, 0.9, (images, layers))
    for layer, count in gaps:
        values[:count, layer] = np.nan
    return pd.DataFrame(values, columns=[f"l{i}" for i in range(layers)])


def test_a_layer_is_decided_where_no_arm_has_too_many_empty_maps(tiny):
    rng, limit = np.random.default_rng(0), tiny.settings.flags
    full, few, many = gapped(rng), gapped(rng, gaps=[(1, 4)]), gapped(rng, gaps=[(2, 5)])
    assert layers.decided_layers([full, few], limit).tolist() == [True, True, True]  # 4 of 40: 10 %
    assert layers.decided_layers([full, few, many], limit).tolist() == [True, True, False]
    assert layers.decided_layers([many.iloc[:0], full], limit).all()
    assert layers.decided_layers([many.iloc[:0]], limit).tolist() == [False] * 3
    common, own = np.array([True, True, False]), np.array([True, False, True])
    columns = layers.with_mean(many, common, own)
    np.testing.assert_allclose(columns[:, -1], many[["l0", "l1"]].mean(axis=1))
    np.testing.assert_array_equal(columns[:, [0, 2]], many[["l0", "l2"]])
    assert np.isnan(columns[:, 1]).all()


def test_shares_twin(cell, tiny):
    """What is left with the class fixed, and what the negated perturbation has, in loops."""
    limits = tiny.settings.flags
    table = flips.shares(cell, tiny.settings.statistics, limits, seed=1).set_index("share")
    values = part(Record, "record").scores.query(
        "method == 'GradCAM' and score == 'cosine' and strength == 1 and draw == 0"
    )
    values = values[values["reading"] == cell.first.reading]
    value = values.set_index(["target", "variant", "layer", "image"])["value"].to_dict()
    images = part(Attacked, "attack").images
    flipped = images.loc[images["success"], "image"].tolist()

    def quotient(pairs, images):
        """Layers that are decided; of means over images of means over these, part over whole."""
        names = []
        for layer in cell.layers:
            empty = np.isnan([pairs(layer, image) for image in images]).mean(axis=0)
            if empty.max() <= limits.empty_share:
                names.append(layer)
        means = []
        for i in images:
            both = [pairs(layer, i) for layer in names]
            both = [p for p in both if not np.isnan(p).any()]
            if both:
                means.append(np.mean(both, axis=0))
        top, bottom = np.mean(means, axis=0)
        return len(names), top / bottom

    def fixed(layer, image):
        excess = [
            value[target, "noise", layer, image] - value[target, "adversarial", layer, image]
            for target in ("seed_class", "own_top1")
        ]
        return excess[0], excess[1]

    layers, expected = quotient(fixed, flipped)
    row = table.loc["class fixed"]
    assert [row["images"], row["layers"]] == [len(flipped), layers]
    assert row["value"] == pytest.approx(expected)
    assert row["part"] / row["whole"] == pytest.approx(expected)
    assert row["low"] <= row["value"] <= row["high"]

    def negated(layer, image):
        noise = value["seed_class", "noise", layer, image]
        return (
            noise - value["seed_class", "negated", layer, image],
            noise - value["seed_class", "adversarial", layer, image],
        )

    layers, expected = quotient(negated, images["image"].tolist())
    row = table.loc["negated"]
    assert [row["images"], row["layers"]] == [len(images), layers]
    assert row["value"] == pytest.approx(expected)
    assert 0 <= row["flipped"] <= 1


def test_the_boundary_twin(cell, tiny):
    """Pairs just below and above the boundary, in loops over layers and images."""
    table = flips.boundary(cell, tiny.settings.statistics, tiny.settings.flags, seed=1)
    values = part(Record, "record").scores.query("method == 'GradCAM' and score == 'cosine'")
    values = values[values["reading"] == cell.first.reading]
    value = values.set_index(["target", "variant", "layer", "image"])["value"]
    rows = part(Maps, "cam").select().query("target == 'own_top1'").set_index(["variant", "image"])
    clean = part(Attacked, "attack").images.set_index("image")["clean"]
    parts = part(Noise, "noise").boundary.query("flipped").set_index("image")
    images = [
        image for image in parts.index
        if rows.loc[("below_boundary", image), "prediction"] == clean[image]
        and rows.loc[("above_boundary", image), "prediction"] != clean[image]
    ]  # fmt: skip
    assert images
    assert (parts["above"] - parts["below"] == 2**-8).all()
    for target in ("own_top1", "seed_class"):
        for layer in cell.layers:
            pairs = [
                [1 - value[target, side, layer, image] for image in images]
                for side in ("below_boundary", "above_boundary")
            ]
            both = ~np.isnan(pairs).any(axis=0)
            row = table.query("target == @target and layer == @layer").iloc[0]
            assert [row["images"], row["n"]] == [len(images), both.sum() if row["n"] else 0]
            if row["n"]:
                below, above = np.array(pairs)[:, both].mean(axis=1)
                assert row[["below", "above"]].tolist() == pytest.approx([below, above], rel=1e-5)
                assert row["difference"] == pytest.approx(above - below, abs=1e-6)


def test_without_an_image_that_crosses_the_boundary_there_is_no_row(cell, tiny):
    none = replace(cell, flipped=cell.flipped & False)
    assert not len(flips.boundary(none, tiny.settings.statistics, tiny.settings.flags, seed=1))


def test_the_evidence_has_a_row_a_cell_with_an_attack(outputs):
    table = report.evidence({"tiny": outputs})
    assert table["attack"].tolist() == ["fgsm", "pgd", "dlfuzz"]
    assert table["images, network"].str.contains("digits").all()
    assert table.notna().all(axis=None)


def test_where_too_many_maps_are_empty_the_evidence_says_so(outputs):
    shares = outputs["shares"].copy()
    shares.loc[shares["cell"] == CELL, ["value", "low", "high", "drift_attack", "layers"]] = np.nan
    row = report.evidence({"tiny": {**outputs, "shares": shares}}).set_index("attack").loc["dlfuzz"]
    assert row["drift, attack / noise"] == row["excess left, class fixed"] == "too many empty maps"
    assert row["excess of the negated"].startswith("too many empty maps, flips ")
    assert not row.str.contains("nan").any()


def test_a_number_that_does_not_exist_is_a_dash_in_a_detail():
    number = float("nan")
    detail = f"0.5: {number:.3f}, 1: {number:.0%} (noise 5%), of nanometres"
    assert findings.Finding(0, 0, 0, findings.UNDECIDED, detail).detail == (
        "0.5: -, 1: - (noise 5%), of nanometres"
    )


def test_claims_by_an_earlier_rule_are_under_review_and_say_why(outputs):
    assert not claims.texts(outputs)["says"].str.contains("under review").any()
    earlier = outputs["claims"].assign(detail=outputs["claims"]["detail"].str.replace("rule ", ""))
    table = claims.texts({**outputs, "claims": earlier}).set_index("claim")
    assert table.loc["A9", "says"].endswith(" (under review)")
    assert "under review: judged by a quantile of held-out noise" in table.loc["A9", "flags"]
    assert not table["says"].drop(["A9", "A10", "A11", "A12"]).str.contains("under review").any()


def test_every_claim_has_a_row_and_a_verdict(outputs):
    table = outputs["claims"]
    assert table["id"].tolist() == [claim.id for claim in study.CLAIMS]
    assert len(table) == 23
    assert set(table["verdict"]) <= set(findings.VERDICTS)
    assert set(table["published_verdict"]) <= set(findings.VERDICTS)
    assert table["rests_on"].str.contains("digits").all()
    by_claim = (
        outputs["switches"].query("cell == @CELL and protocol == 'corrected'").set_index("claim")
    )
    for _, row in table.iterrows():
        assert row["verdict"] == by_claim.loc[row["id"], "verdict"]
        np.testing.assert_equal(row["value"], by_claim.loc[row["id"], "value"])


def test_the_papers_oddity_is_the_loops(outputs):
    """A5: strengths 0.5 and 1 alike, wherever the loop is, and nowhere else."""
    rows = outputs["switches"].query("cell == @CELL and claim == 'A5'").set_index("protocol")
    looped = {"as_published", "only_strengths"}
    for name, row in rows.iterrows():
        assert (row["verdict"] == findings.HOLDS) == (name in looped), name


def test_the_tables_for_people_name_every_claim_and_protocol(outputs, protocols):
    assert len(claims.texts(outputs)) == 23
    table = claims.by_protocol(outputs, CELL)
    assert list(table.columns) == ["claim", *protocols]
    assert len(table) == 23
    assert len(report.contrasts(outputs, CELL)) == 8
    assert "nothing (identity)" in set(report.controls(outputs, CELL)["variant"])


@pytest.fixture(scope="module")
def cell(tiny, protocols) -> results.Results:
    with inside(tiny.folder):
        plan = tiny.settings
        return results.read(
            "tiny", CELL, plan.cells[CELL], protocols, plan.statistics, seed=plan.seed
        )


def test_one_source_decides_nothing_and_breaks_nothing(cell, tiny):
    """Without other pictures there is no held-out threshold and no interval."""
    options = tiny.settings.statistics
    alone = cell.every.assign(source="one", fold=0)
    changed = replace(cell, every=alone, images=cell.images.assign(source="one"))
    by_name = tables.cell_tables(changed, options, tiny.settings.flags, seed=1)
    assert set(by_name["compromised"]["rule"]) == {"layer_median", "global_mean"}
    switches = study.switch_table(changed, options, tiny.settings.flags, seed=1)
    switches = switches[switches["protocol"] == "corrected"].set_index("claim")
    assert set(switches["verdict"]) <= {findings.UNDECIDED, findings.NOT_RUN}


def raised(cell, outputs, tiny, limits=None, **columns) -> dict[str, str]:
    """Flags by name when columns of the attack's table, or limits, are changed."""
    changed = replace(cell, images=cell.images.assign(**columns))
    mine = {name: outputs[name].query("cell == @CELL") for name in ("excess", "noise")}
    options = tiny.settings.flags.model_copy(update=limits or {})
    table = flags.cell_flags(changed, mine, options, tiny.settings.statistics)
    return table.set_index("flag")["text"].to_dict()


def test_flags_are_raised_by_what_they_name(cell, outputs, tiny):
    plain = raised(cell, outputs, tiny)
    assert "threshold on test data" in plain
    for flag in ("gradients masked", "softmax fed", "only by clipping", "few sources"):
        assert flag not in plain
    assert "few successes" in raised(cell, outputs, tiny, {"minimum_successes": 10_000})
    assert "few successes" not in raised(cell, outputs, tiny, {"minimum_successes": 1})
    assert "gradients masked" in raised(cell, outputs, tiny, zero_gradient=True)
    assert "softmax fed" in raised(cell, outputs, tiny, probabilities=True)
    clipped = raised(cell, outputs, tiny, unclipped=cell.images["clean"])
    assert "100.0% of the successes" in clipped["only by clipping"]
    assert raised(cell, outputs, tiny, source="one")["few sources"].startswith("1 sources")
    flips = replace(cell, flipped=cell.flipped | True)
    assert "noise flips" in raised(flips, outputs, tiny)
    still = replace(cell, flipped=cell.flipped & False)
    assert "noise flips" not in raised(still, outputs, tiny)


def test_flags_name_the_claims_that_they_touch(outputs):
    mine = outputs["flags"].query("cell == @CELL")
    touching = flags.by_claim(mine, "as_published")
    assert "threshold on test data" in touching["A9"]
    assert "threshold on test data" not in touching.get("A1", "")
    table = outputs["claims"].set_index("id")
    assert table.loc["A9", "published_flags"] == touching["A9"]
    assert "threshold on test data" in table.loc["A9", "flags"]
    held_out = mine.assign(protocols=mine["protocols"].str.replace("corrected", "other"))
    assert "threshold on test data" not in flags.by_claim(held_out, "corrected")["A9"]


def test_images_to_look_at_are_right_when_clean_and_flipped_by_the_attack():
    images = pd.DataFrame(
        {
            "label": [0, 1, 2, 3, 4],
            "clean": [9, 1, 2, 9, 4],  # 0 and 3 are wrong when clean
            "success": [True, False, True, False, True],
        }
    )
    assert variants.shown(images, count=4).tolist() == [2, 4, 1, 0]
    assert variants.shown(images, count=9).tolist() == [2, 4, 1, 0, 3]
