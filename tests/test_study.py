"""The whole study on tiny data: what the stages wrote, looked at."""

import re
import shutil

import numpy as np
import pandas as pd
import pytest
import torch

from camdrift import settings, storage
from camdrift.analysis import drawing, results, tables
from camdrift.detectors import drift
from camdrift.detectors.families import families
from camdrift.evaluation.evaluation import add_facts, fit_detectors
from camdrift.explain import cam, packing
from camdrift.models import loading
from camdrift.ops import publication, readme, stages, summary
from camdrift.papers import interface
from camdrift.papers.renkhoff2022 import figures, report
from camdrift.papers.renkhoff2022.study import JUDGES
from camdrift.papers.tan2023 import adaptive as attacked_detectors
from camdrift.papers.tan2023 import report as detector_report
from camdrift.papers.tan2023 import tables as evaluation
from camdrift.perturbations import variants
from camdrift.storage import (
    Attacked,
    Covered,
    Detected,
    ImageSet,
    Maps,
    Noise,
    Scores,
    Similarities,
    files,
)
from conftest import inside
from test_detectors import CHANCE, NAMES

CELLS = ("tiny_none", "tiny_fgsm", "tiny_pgd", "tiny_dlfuzz")
DETECTED = (*CELLS[1:], "tiny_keeping")
STUDIES = ("tiny", "tiny_detectors", "tiny_inspecting", "tiny_generalising", "tiny_maps")


def part(kind, cell, stage):
    study = "tiny_detectors" if kind in (Detected, Similarities) else "tiny"
    return storage.read(kind, storage.cell_folder(study, cell, stage))


@pytest.fixture(autouse=True)
def _in_the_study(tiny):
    with inside(tiny.folder):
        yield


def test_every_declared_output_is_there(tiny):
    plan = tiny.settings
    ones = (plan.sets, plan.models, plan.studies, plan.sources, plan.targets)
    others = 2 * len(plan.retrainings) + 5 * len(plan.cells)
    assert len(tiny.stages) == 1 + sum(len(group) for group in ones) + others
    for path in (
        storage.set_datasheet("digits"), storage.model_card("vgg11_eighth"),
        *(storage.results(name, "metrics.json") for name in STUDIES),
        *(storage.report(name) for name in STUDIES),
    ):  # fmt: skip
        assert path.stat().st_size > 0
    assert not list(tiny.folder.rglob("*.tmp"))


def test_no_attack_moves_no_map():
    maps, scores = part(Maps, "tiny_none", "cam"), part(Scores, "tiny_none", "score").values
    attacked = part(Attacked, "tiny_none", "attack")
    assert not attacked.perturbation.any()
    assert not attacked.images["success"].any()
    known = scores[scores["variant"] != "unrelated"].dropna(subset="value")
    assert (known["value"] - 1).abs().max() < 1e-6
    assert (part(Noise, "tiny_none", "noise").scales["scale"] == 0).all()
    own = maps.rows.query("target == 'own_top1'")
    assert own.groupby(["method", "image"])["map"].nunique().max() == 1
    assert len(maps.values) == len(maps.methods) * len(attacked.images)


@pytest.mark.parametrize("cell", CELLS)
def test_tables_of_a_cell_fit_together(tiny, cell):
    strengths = tiny.settings.cells[cell].strengths
    known = settings.protocols(tiny.settings.protocols)
    protocols = {name: known[name] for name in tiny.settings.cells[cell].protocols}
    attacked, maps = part(Attacked, cell, "attack"), part(Maps, cell, "cam")
    images = storage.read(ImageSet, storage.set_folder("digits"))
    tests = images.index[images.index["split"] == "test"]
    assert attacked.images["id"].tolist() == tests["id"].tolist()
    assert attacked.perturbation.shape == (len(tests), 3, 32, 32)
    assert maps.methods == tiny.settings.cams.methods
    # Of methods after the first: clean, attack and the first draw at each rung, for both targets.
    for method in maps.methods[1:]:
        assert len(maps.select(method)) == 2 * (1 + 2 * len(strengths)) * len(tests)
    kinds = maps.select().groupby(["variant", "strength", "draw", "recipe", "target"]).size()
    first, *others = protocols.values()
    softmax = any(p.score == "softmax_for_originals" for p in protocols.values())
    raised = "raised_noise" in kinds.index.get_level_values("variant")
    # Both targets of the first recipe: clean, attack, two draws of noise, four controls.
    near = 2 * ("above_boundary" in kinds.index.get_level_values("variant"))
    expected = 2 * (1 + softmax + 3 * len(strengths) + 4 + raised + near)
    for recipe in {p.recipe for p in others} - {first.recipe}:
        held_out = all(p.threshold == "held_out_quantile" for p in others if p.recipe == recipe)
        expected += len(strengths) * (2 if held_out else 3)
    assert len(kinds) == expected
    of_some = ["raised_noise", "below_boundary", "above_boundary"]
    whole = kinds.drop(of_some, level="variant", errors="ignore")
    assert (whole == len(tests)).all()
    assert set(maps.rows["map"]) == set(range(len(maps.values)))
    layers = maps.layers
    assert maps.values.shape[1] == (layers["height"] * layers["width"]).sum()
    # The attack's own measurements and the variants agree, image by image.
    recipe = first.recipe  # noqa: F841 in the query
    own = maps.select().query("target == 'own_top1' and draw == 0 and recipe in ['', @recipe]")
    own = own.set_index("image")
    assert (own.query("variant == 'clean'")["prediction"].to_numpy()
            == attacked.images["clean"].to_numpy()).all()  # fmt: skip
    assert (own.query("variant == 'adversarial' and strength == 1")["prediction"].to_numpy()
            == attacked.images["adversarial"].to_numpy()).all()  # fmt: skip
    seed = maps.rows.query("target == 'seed_class'").reset_index()
    clean = attacked.images.set_index("image")["clean"]
    assert (seed["target_class"].to_numpy() == clean.loc[seed["image"]].to_numpy()).all()


@pytest.mark.parametrize("cell", CELLS[1:])
def test_noise_has_the_attacks_size_at_every_rung(cell):
    scales = part(Noise, cell, "noise").scales
    scales = scales[scales["recipe"].str.endswith("-none-matched")]
    ratio = scales["noise_l2"] / scales["attack_l2"]
    assert (ratio - 1).abs().max() < 0.01


def test_stored_maps_are_those_of_the_stored_pixels(tiny):
    """One image of one variant, explained anew through the library alone."""
    images = storage.read(ImageSet, storage.set_folder("digits"))
    attacked, noise = part(Attacked, "tiny_fgsm", "attack"), part(Noise, "tiny_fgsm", "noise")
    maps = part(Maps, "tiny_fgsm", "cam")
    model = loading.load("vgg11_eighth", micro_batch=32)
    corrected = settings.protocols(tiny.settings.protocols)["corrected"]
    composition = variants.compose(images, attacked, noise, [corrected])
    table = composition[4].table
    batch = torch.from_numpy(composition[4].pixels()[:1]).expand(32, -1, -1, -1)
    _, own, _ = cam.explain(model, batch, torch.zeros(32, dtype=torch.long), names=maps.methods)
    for method in maps.methods:
        shares, maxima = packing.pack(tuple(layer[:1] for layer in own[method]))
        row = maps.select(method).merge(table.iloc[:1]).query("target == 'own_top1'")["map"].item()
        np.testing.assert_array_equal(maps.values[row], shares[0])
        np.testing.assert_array_equal(maps.maxima[row], maxima[0])


def test_the_table_of_methods_has_the_drift_of_each(tiny):
    outputs = results.load("tiny")
    table = outputs["methods"].query("cell == 'tiny_fgsm'")
    assert list(table["method"].unique()) == tiny.settings.cams.methods
    # The first is what the excess says; the means of another, by hand.
    first = table[table["method"] == tiny.settings.cams.methods[0]].drop(columns="method")
    whole = outputs["excess"].query("cell == 'tiny_fgsm' and strength == 1")[list(first.columns)]
    pd.testing.assert_frame_equal(first.reset_index(drop=True), whole.reset_index(drop=True))
    values = part(Scores, "tiny_fgsm", "score").values.query(
        "method == 'LayerCAM' and strength == 1 and target == 'own_top1' and layer == '2-1'"
    )
    value = values.pivot(index="image", columns="variant", values="value")
    row = table.query("method == 'LayerCAM' and group == 'all' and target == 'own_top1' "
                      "and layer == '2-1'").squeeze()  # fmt: skip
    assert row["mean"] == pytest.approx((value["noise"] - value["adversarial"]).mean(), abs=6e-4)


def test_ssim_is_missing_where_maps_are_too_small(tiny):
    maps, values = part(Maps, "tiny_fgsm", "cam"), part(Scores, "tiny_fgsm", "score").values
    small = maps.layers.query("height < 3")["label"]
    assert len(small)
    ssim = values[values["score"] == "ssim"]
    assert ssim[ssim["layer"].isin(small)]["value"].isna().all()
    assert ssim[~ssim["layer"].isin(small)]["value"].notna().mean() > 0.5


def test_coverage_is_of_both_arms_at_every_rung():
    covered = part(Covered, "tiny_dlfuzz", "coverage")
    assert covered.rows.groupby(["variant", "strength"]).ngroups == 1 + 2 * 5
    bits = np.unpackbits(covered.bits, axis=1, count=covered.facts["neurons"])
    assert 0 < bits.mean() < 1


def test_the_gradient_free_attack_lowers_the_fitted_detectors_own_score(tiny):
    detected = part(Detected, "tiny_pgd", "detect")
    detectors = fit_detectors(
        detected.features, detected.images, 1.0, families(tiny.settings.detection)
    )
    rows = add_facts(detected.features, detected.images).assign(
        against=detected.features["against"]
    )
    for name in ("squeezing", *drift.NAMES):
        mine = rows["against"].isin(["", name]) & (rows["prediction"] != rows["clean"])
        scores = {
            arm: pd.Series(detectors[name].score_samples(part), part["image"])
            for arm, part in rows[mine].groupby("variant")
            if arm in ("non_adaptive", "gradient_free")
        }
        change = scores["gradient_free"] - scores["non_adaptive"]
        assert change.notna().sum() == len(scores["non_adaptive"]) > 5
        assert change.max() < 1e-4  # last digits depend on the batch
        assert (change < -1e-4).mean() > 0.3


def test_detectors_see_every_variant_and_the_attacks_made_for_them():
    detected = part(Detected, "tiny_pgd", "detect")
    rows = detected.features
    counts = rows.groupby(["variant", "strength"]).size()
    whole, test = len(detected.images), int((detected.images["split"] == "test").sum())
    for strength in (0.5, 1.0):
        assert counts["adversarial", strength] == counts["noise", strength] == whole
    assert counts["clean", 0.0] == whole
    assert counts["non_adaptive", 1.0] == test
    adaptive = rows[rows["variant"] == "adaptive"].groupby("against").size()
    assert set(adaptive.index) == set(NAMES) - {CHANCE}
    assert (adaptive == test).all()
    free = rows[rows["variant"] == "gradient_free"].groupby("against").size()
    assert free.to_dict() == dict.fromkeys(("squeezing", *drift.NAMES), test)
    # Noise of the size of each attack, image by image.
    for arm in ("adaptive", "non_adaptive", "gradient_free"):
        pair = [rows[rows["variant"] == name] for name in (arm, f"{arm}_noise")]
        assert pair[0]["image"].to_list() == pair[1]["image"].to_list()
        assert pair[0]["against"].to_list() == pair[1]["against"].to_list()
        np.testing.assert_allclose(pair[1]["rms"], pair[0]["rms"], rtol=0.02)
        assert pair[0]["rms"].min() > 0
    # Behaviour deviation reads the most sensitive layer.
    layers = detected.layers.set_index("rank")
    assert layers["behaviour"].sum() == 1
    assert layers.loc[1, "behaviour"]
    # What a detector reads of its own adaptive attack is there, and nothing else.
    energy = rows[rows["against"] == "energy"]
    assert energy["energy"].notna().all()
    assert energy["residual"].isna().all()
    assert detected.maps.shape[:2] == detected.pictures.shape[:2]
    # The same images in the same splits in every cell, so that transfer tests on other images.
    other = part(Detected, "tiny_dlfuzz", "detect").images
    assert detected.images[["image", "split"]].equals(other[["image", "split"]])
    nothing = part(Detected, "tiny_none", "detect")  # the cell names no strength
    assert nothing.features.empty
    assert nothing.images.empty


def test_features_of_a_stored_variant_are_those_of_the_library(tiny):
    detected = part(Detected, "tiny_fgsm", "detect")
    attacked = part(Attacked, "tiny_fgsm", "attack").images.set_index("image")
    rows = detected.features.query("variant == 'adversarial' and strength == 1").set_index("image")
    assert rows["prediction"].equals(attacked.loc[rows.index, "adversarial"].rename("prediction"))


def test_evaluation_tables_fit_together(tiny):
    outputs = results.load("tiny_detectors")
    assert set(outputs["detectors"]["detector"]) == set(NAMES)
    cells = outputs["detectors"][["cell", "strength"]].drop_duplicates().values.tolist()
    expected = [[name, s] for name in DETECTED for s in tiny.settings.cells[name].detect]
    assert cells == expected
    whole = (
        outputs["transfer"].groupby(["fitted_cell", "fitted_strength", "cell", "strength"]).ngroups
    )
    fewer = sum(name == "tiny_keeping" for name, _ in expected)  # it alone takes a part of the set
    assert whole == (len(expected) - fewer) ** 2 + fewer**2
    own = outputs["transfer"].query("fitted_cell == cell and fitted_strength == strength")
    same = outputs["detectors"].query("positives == 'success' and negatives == 'both'")
    keys = ["cell", "strength", "detector"]
    pairs = own.merge(same.drop_duplicates(keys), on=keys)
    pd.testing.assert_series_equal(pairs["auroc_x"], pairs["auroc_refitted"], check_names=False)
    first = pairs[pairs["strength"] == 1]
    pd.testing.assert_series_equal(first["auroc_x"], first["auroc_y"], check_names=False)
    # One threshold for all strengths of a cell.
    assert outputs["limits"].groupby(["cell", "detector"])["limit"].nunique(dropna=False).max() == 1
    assert len(detector_report.evaluation(outputs, "tiny_dlfuzz")) == len(NAMES) + 7
    attacked = outputs["adaptive"].set_index(["detector", "arm"])
    # These attacks lower the detectors' own scores, and behaviour deviation's ignores its copies.
    scores = ["confidence", "energy", "residual", "squeezing", "kde", "recovery", *drift.NAMES]
    assert (attacked["fidelity"].unstack()["adaptive"][scores] > 0.99).all()
    assert attacked["fidelity"].unstack()["adaptive"]["behaviour_median"] < 0.99
    assert attacked["fidelity"].unstack()[["gradient_free", "non_adaptive"]].isna().all(axis=None)
    flips = attacked["flipped"].unstack()
    kept = flips["gradient_free"].dropna()
    assert set(kept.index) == {"squeezing", *drift.NAMES}
    assert (kept >= flips["non_adaptive"][kept.index]).all()
    of_search = attacked.xs("gradient_free", level="arm")
    assert (of_search["lowered"] > 0.5).all()
    assert of_search["below_adaptive"].between(0, 1).all()
    assert set(attacked_detectors.texts(outputs)["cell"]) == {"tiny_pgd"}
    assert outputs["claims"].set_index("id").loc["B1", "verdict"] == "not decided"


def test_dlfuzz_kept_its_log():
    log = part(Attacked, "tiny_dlfuzz", "attack").log
    assert (log.groupby("image")["step"].min() == 0).all()
    assert log["coverage"].between(0, 1).all()


@pytest.fixture(scope="module")
def outputs(tiny) -> results.Tables:
    with inside(tiny.folder):
        return results.load("tiny")


@pytest.mark.parametrize("name", STUDIES)
def test_tables_come_again_from_published_records(tiny, name, tmp_path, monkeypatch):
    """Byte for byte, where no images, networks, maps and tables are; and as they were written."""
    paper, fresh = interface.paper(tiny.settings.studies[name].paper), {}
    tables = paper.tables
    monkeypatch.setattr(paper, "tables", lambda *which: fresh.update(tables(*which)) or fresh)
    published = tmp_path / "data" / "results" / name
    shutil.copytree(tiny.folder / "data" / "reports" / name, published)
    shutil.rmtree(published / "tables")
    (published / "metrics.json").unlink()
    with inside(tmp_path):
        for manifest in published.rglob("manifest.json"):
            folder = manifest.parent.relative_to(tmp_path)
            parts = [file.name for file in folder.iterdir() if file.name != "manifest.json"]
            files.sign(folder, folder.as_posix(), sorted(parts))
        text = publication.reanalyse(name)
        outputs = results.load(name)
    assert f"Study '{name}'" in text
    again = tmp_path / "data" / "reports" / name
    for file in ["metrics.json", "README.md", "settings.json", *(f"tables/{t}.csv" for t in fresh)]:
        first = tiny.folder / "data" / "reports" / name / file
        assert (again / file).read_bytes() == first.read_bytes(), file
    drawn = {path.name for path in (again / "figures").iterdir()}
    assert drawn == {path.name for path in (published / "figures").iterdir()}
    assert set(fresh) == set(outputs)
    for table_name, table in fresh.items():
        plain = table.astype({c: object for c in table.select_dtypes("category")})
        pd.testing.assert_frame_equal(
            plain, outputs[table_name], check_dtype=False, atol=1e-9, check_column_type=False
        )


def test_the_tables_of_the_cells_are_in_the_one_study_or_the_other(tiny):
    layers, detectors = (set(results.load(name)) for name in ("tiny", "tiny_detectors"))
    assert layers == set(tables.ABOUT)
    assert detectors == set(evaluation.ABOUT)
    assert layers & detectors == {"claims", "flags", "switches"}
    switches = [results.load(name)["switches"] for name in ("tiny", "tiny_detectors")]
    by_study = [
        [(key, protocol) for key, cell in tiny.settings.cells.items()
         if study in (cell.study, cell.evaluation) for protocol in cell.protocols]
        for study in ("tiny", "tiny_detectors")
    ]  # fmt: skip
    for table, claims, runs in zip(switches, (JUDGES, ["B6"]), by_study, strict=True):
        rows = table[["cell", "protocol", "claim"]].itertuples(index=False, name=None)
        assert list(rows) == [(*run, claim) for run in runs for claim in claims]


def test_distribution_twin(outputs):
    values = part(Scores, "tiny_fgsm", "score").values.query("method == 'GradCAM'")
    sample = values.query("variant == 'adversarial' and strength == 1 and score == 'cosine' "
                          "and target == 'own_top1' and layer == '1-1'")["value"]  # fmt: skip
    row = (
        outputs["similarity"]
        .query(
            "cell == 'tiny_fgsm' and variant == 'adversarial' and strength == 1 and group == 'all' "
            "and score == 'cosine' and target == 'own_top1' and layer == '1-1'"
        )
        .squeeze()
    )
    known = sample.dropna()
    assert [row["n"], row["empty"]] == [len(known), sample.isna().sum()]
    assert row["mean"] == pytest.approx(known.mean(), abs=1e-3)
    assert row["mean_empty_0"] == pytest.approx(sample.fillna(0).mean(), abs=1e-3)
    reach = 1.5 * (known.quantile(0.75) - known.quantile(0.25))
    inside_fence = known[known >= known.quantile(0.25) - reach]
    assert row["low"] == pytest.approx(inside_fence.min(), abs=1e-3)
    assert row["high"] == pytest.approx(known.max(), abs=1e-3)  # the fence lies above 1 or the max


def test_excess_is_paired_by_image(outputs):
    values = part(Scores, "tiny_fgsm", "score").values.query(
        "score == 'cosine' and target == 'seed_class' and strength == 2 and layer == '2-1' "
        "and draw == 0 and method == 'GradCAM'"
    )
    wide = values.pivot(index="image", columns="variant", values="value").dropna()
    expected = (wide["noise"] - wide["adversarial"]).mean()
    row = (
        outputs["excess"]
        .query(
            "cell == 'tiny_fgsm' and target == 'seed_class' and strength == 2 and layer == '2-1' "
            "and group == 'all'"
        )
        .squeeze()
    )
    assert row["mean"] == pytest.approx(expected, abs=1e-3)
    assert row["n"] == len(wide)
    assert row["low"] <= row["mean"] <= row["high"]


def test_counts_are_shares_of_images(outputs):
    keys = ["cell", "rule", "target", "group", "arm", "strength"]
    shares = outputs["counts"].groupby(keys)["share"].sum()
    assert (shares - 1).abs().max() < 0.01


def drawn(tiny, outputs):
    drawn = [draw() for draw in figures.by_name(outputs, "tiny_dlfuzz").values()]
    return [*drawn, figures.figure_3(results.example("tiny", "tiny_dlfuzz"))]


def test_every_figure_of_the_paper_is_drawn_twice(tiny, outputs, tmp_path):
    by_name = {figure.name: figure for figure in drawn(tiny, outputs)}
    numbers = ("2a", "2b", "3", "4a", "4b", "5a", "5b", "6", "7")
    own = {
        "drift_by_arm_own_class", "drift_by_arm_clean_class", "drift_at_boundary",
        "excess_by_strength", "excess_by_layer", "excess_by_method",
        "renkhoff_figure_5a_as_published",
    }  # fmt: skip
    assert set(by_name) == own | {f"renkhoff_figure_{number}" for number in numbers}
    for name, figure in by_name.items():
        assert figure.caption
        assert figure.kind == "panel" or len(figure.table), name
        chart = drawing.plotly(figure)
        assert len(chart.data) >= 1
        committed = storage.results("tiny", "figures") / f"{name}.png"
        drawing.png(figure, tmp_path / "again.png")
        assert (tmp_path / "again.png").read_bytes() == committed.read_bytes()


def test_the_readme_of_every_study_shows_its_figures_tables_and_verdicts(tiny):
    with inside(tiny.folder):
        for name in STUDIES:
            text = storage.results(name, "README.md").read_text()
            command = f"make repro STUDY={name}"
            assert text == readme.study_readme(name, storage.results, command=command)
            assert text.startswith(f"# {tiny.settings.studies[name].title}\n")
            for folder, ending in (("figures", "png"), ("tables", "csv")):
                files = {f"{folder}/{f.name}" for f in storage.results(name, folder).iterdir()}
                assert set(re.findall(rf"\]\(({folder}/[^)]+{ending})\)", text)) == files
            table = results.load(name)["claims"].query("verdict != 'not run here'")
            assert len(table)
            for row in table.itertuples():
                shown = re.search(rf"^\| {row.id}: .*$", text, re.M)[0]
                assert f" | {row.verdict} | " in shown
                assert pd.isna(row.value) or f"{row.value:.3f}" in shown
            assert command in text


def test_report_reads_without_a_network_and_shows_names_as_text(tiny, outputs):
    text = storage.report("tiny").read_text()
    loaded = re.findall(r"<(?:script|link|img)[^>]*(?:src|href)=[\"']?(https?:[^\"'\s>]*)", text)
    assert loaded == []
    title = "<script>alert(1)</script>"
    plan = tiny.settings.studies["tiny"].model_copy(update={"title": title})
    own = tiny.settings.model_copy(update={"studies": {"tiny": plan}})
    page = report.page("tiny", own, outputs, [])
    assert "<script>alert" not in page


def test_metrics_are_numbers_by_cell():
    for name, cells in (("tiny", CELLS), ("tiny_detectors", DETECTED)):
        metrics = files.read_json(storage.results(name, "metrics.json"))
        assert set(metrics) == set(cells)
        assert all(isinstance(value, int | float) for r in metrics.values() for value in r.values())


def test_the_summary_names_reports_and_dashboard(tiny, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["summary", "show"])
    summary.main()
    text = capsys.readouterr().out
    for name in STUDIES:
        assert storage.report(name).as_posix() in text
    assert summary.DASHBOARD in text
    assert all(cell in text for cell in CELLS)


def test_the_stages_that_report_are_named(tiny, monkeypatch, capsys):
    for named in (list(STUDIES), ["tiny_inspecting", "tiny"]):
        monkeypatch.setattr("sys.argv", ["stages", *named])
        stages.main()
        assert capsys.readouterr().out.split() == [f"report@{name}" for name in named]
    with pytest.raises(settings.SettingsError, match="no study 'huge'; there are: tiny, tiny_de"):
        stages.reports(["huge"])


def test_the_similarities_of_the_claim_on_layers_are_those_of_the_layer_study(tiny):
    """The mean over flipped images and the floor of unrelated ones, as the tables have them."""
    similar, outputs = part(Similarities, "tiny_dlfuzz", "similarity"), results.load("tiny")
    images = part(Attacked, "tiny_dlfuzz", "attack").images
    assert similar.images.equals(images[["image", "source", "success"]])
    assert similar.images["success"].any()
    first = settings.protocols(tiny.settings.protocols)["corrected"]  # noqa: F841 in the query
    values = similar.values.query("reading == @first.reading and target == 'seed_class'")
    flipped = values[values["image"].isin(images.loc[images["success"], "image"])]
    rows = outputs["similarity"].query(
        "cell == 'tiny_dlfuzz' and strength == 1 and group == 'success' and score == 'cosine' "
        "and target == 'seed_class'"
    )
    for arm in ("adversarial", "noise"):
        means = flipped[flipped["variant"] == arm].groupby("layer", observed=True)["value"].mean()
        expected = rows[rows["variant"] == arm].set_index("layer")["mean"]
        assert list(values["layer"].unique()) == list(expected.index)
        np.testing.assert_allclose(means.loc[expected.index], expected, atol=6e-4)


def test_a_second_run_of_a_stage_writes_the_same_bytes(tiny):
    from camdrift.pipeline import run
    from conftest import script

    def content() -> dict:
        return {f: f.read_bytes() for f in tiny.folder.joinpath("data").rglob("*.*") if f.is_file()}

    before = content()
    for name in tiny.stages:
        if name.endswith(("@digits", "@vgg11_eighth", "@tiny_pgd", "@tiny", "@tiny_detectors")):
            script(name.partition("@")[0]).main(run.Stage(name))
    assert content() == before
