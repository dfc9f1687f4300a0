import copy
import inspect
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from camdrift import attacks, settings
from camdrift.ops import checks
from camdrift.settings import params, presets
from conftest import ROOT, TINY, copy_of_repository

CONTENT = YAML(typ="safe").load(ROOT / "params.yaml")


def changed(path: str, value, content: dict | None = None) -> dict:
    """Settings, params.yaml's own by default, with one value set, added or (None) removed."""
    content = copy.deepcopy(content or YAML(typ="safe").load(ROOT / "params.yaml"))
    *parents, last = path.split(".")
    place = content
    for parent in parents:
        place = place[parent]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return content


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("sed", 1, "no key 'sed' (perhaps 'seed'); there are: attacks, cams"),
        ("seed", None, "seed: wanted, but not there"),
        ("seed", -1, "seed: wanted a number of at least 0, got -1"),
        ("seed", "one", "seed: wanted a whole number, got 'one'"),
        ("retrainings.inspecting.model", "vgg", "retrainings.inspecting.model: no model 'vgg'"),
        ("studies.generalising.eps", [0.1, 0.05], "wanted eps above 0 that rise, got"),
        ("studies.generalising.transferred", "VGG", "no source 'VGG' on set 'photos'"),
        ("studies.generalising.ranges", ["unit", "unit"], "wanted each of ranges once"),
        ("targets.vgg16.maps", False, "targets.vgg16.maps: wanted true on a set without prepro"),
        ("targets", {}, "studies.generalising: wanted targets on a set without prepro"),
        ("targets.vgg16.model", "vgg", "targets.vgg16.model: no model 'vgg' in params.yaml"),
        ("targets.vgg16.network", "Xception", "network 'Xception' stands twice on set 'photos'"),
        ("sources.resnet50", None, "no source 'ResNet50' on set 'photos'"),
        (
            "sets.photos.preprocessing",
            {"align": "f", "crop": 1},
            "sets.photos.preprocessing.align: wanted a function as `module:function`, got 'f'",
        ),
        ("sources.vgg16.network", "mean", "sources.vgg16.network: 'mean' stands for all networks"),
        ("targets.xception.model", "resnet50", "targets.xception.model: network 'Xception' is mod"),
        ("targets.xception.network", "Chollet", "targets.xception.network: model 'xception' is ne"),
        ("sets.photos_cropped.size", 96, "sets.photos_cropped: wanted a set that differs from it"),
        ("sets.photos.size", 96, "sets.photos: wanted a set that differs from it in `preproces"),
        ("targets.xception", None, "no target 'Xception' on a set without preprocessing"),
        ("cams.methods", ["GradCAM", "GradCAM"], "wanted each of methods once, got GradCAM, GradC"),
        ("scores.beside", ["cosine"], "scores.beside: wanted each once, and not the cosine, got"),
        ("cams.methods", [], "cams.methods: wanted at least 1 of them, got []"),
        ("models.resnet50.new_head", True, "`weights:` and `training:` beside `new_head: true`"),
        ("models.resnet50.training.layers", "dense", "wanted `weights:`, since `layers: dense`"),
        ("signatures.window", 4, "window: wanted an odd number of px, got 4"),
        ("cells.fgsm.model", "vgg", "cells.fgsm.model: no model 'vgg' in params.yaml; there are:"),
        ("cells.fgsm.attack", "pdg", "cells.fgsm.attack: no attack 'pdg'"),
        ("cells.fgsm.strengths", [0.5, 2.0], "wanted 1 (the attack itself) among strengths"),
        ("cells.fgsm.strengths", [1.0, 0.5], "wanted strengths that rise"),
        ("cells.fgsm.detect", [2.5], "wanted detect: some of the strengths"),
        ("cells.pgd.detect", [], "wanted detect: to hold 1 (the attack itself), got []"),
        ("cells.fgsm.detect", [0.5], "wanted detect: to hold 1 (the attack itself), got [0.5]"),
        ("detection.shares.test", 0.0, "wanted shares above 0 that add up to 1"),
        ("detection.detectors", {}, "detection.detectors: wanted at least 1 of them, got {}"),
        ("detection.gradient_free.queries", 1, "detection.gradient_free.queries: wanted"),
        (
            "detection.gradient_free.detectors",
            ["odin"],
            "wanted detectors of this study in "
            "gradient_free.detectors, got 'odin'; there are: behaviour, ",
        ),
        ("cells.fgsm-2", CONTENT["cells"]["fgsm"], "wanted a name of a-z, 0-9 and _ only"),
        ("cells.fgsm.evaluation", "layers", "wanted a study of paper tan2023, since the cell has"),
        (
            "cells.fgsm.study",
            "detectors",
            "wanted a study of paper renkhoff2022 or zhang2020, got 'detectors'",
        ),
        ("cells.none.evaluation", "nothing", "cells.none.evaluation: no study 'nothing'"),
        (
            "cells.none.evaluation",
            "maps",
            "wanted a study of paper tan2023, or the cell's own, 'layers', got 'maps' of zhang2020",
        ),
        (
            "cells.fgsm.within",
            "studies/layers/dlfuz/attack",
            "cells.fgsm.within: wanted sets/photos, for an attack that no other limits, or the "
            "attack of a cell on the same set (studies/layers/none/attack, studies/layers/pgd",
        ),
        ("cells.fgsm.within", "studies/layers/fgsm/attack", "got 'studies/layers/fgsm/attack'"),
        ("studies.sets", CONTENT["studies"]["layers"], "studies.sets: wanted another name"),
        ("sets.settings", CONTENT["sets"]["photos"], "sets.settings: wanted another name"),
        ("models.settings", CONTENT["models"]["vit"], "models.settings: wanted another name"),
        ("sources.vgg16.study", "layers", "sources.vgg16.study: wanted a study of paper chakra"),
        ("retrainings.inspecting.study", "layers", "wanted a study of paper klawikowska2020, got"),
        ("studies.detectors.headline", "none", "studies.detectors.headline: wanted a cell with"),
        ("studies.inspecting.retraining", "none", "studies.inspecting.retraining: no retraining"),
        (
            "studies.layers.paper",
            "renkhoff",
            "studies.layers: wanted `paper:` one of 'renkhoff2022', 'tan",
        ),
        ("studies.layers.headline", "cw", "studies.layers.headline: no cell 'cw'"),
        ("models.vgg16_quarter.training", None, "wanted `weights:` or `training:` (or both)"),
        ("cells.fgsm.source", None, "cells.fgsm.source: wanted, but not there"),
        ("sets.photos.kind", "fotos", "kind"),
        ("sets.photos.shares.test", 0.9, "wanted shares that add up to 1"),
        ("models.vgg16_quarter.weights", "https://host/w.pt", "wanted the sha256 of https://host"),
    ],
)
def test_refuses_with_what_was_wanted_and_what_exists(path, value, message):
    with pytest.raises(settings.SettingsError, match="params.yaml is not valid") as fault:
        params.parse(changed(path, value))
    assert message in str(fault.value)


def test_an_attack_is_limited_by_one_that_no_other_limits():
    content = changed("cells.fgsm.within", "studies/layers/pgd/attack")
    plan = params.parse(content)
    assert (plan.cells["fgsm"].limiting, plan.cells["pgd"].limiting) == ("pgd", None)
    with pytest.raises(settings.SettingsError, match="got 'studies/layers/fgsm/attack'"):
        params.parse(changed("cells.dlfuzz.within", "studies/layers/fgsm/attack", content))
    plan = params.parse(changed("cells.fgsm.within", None))  # results of an earlier revision
    assert plan.cells["fgsm"].within == "sets/photos"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("sources.orl_xception_3", None, "wanted source 'Xception' on set 'orl_3'"),
        ("targets.orl_xception_3", None, "wanted target 'Xception' on set 'orl_3'"),
        ("sets.orl_3.fold", 2, "sets.orl_2: studies.orl_generalising has"),
        ("sets.orl_0.fold", 5, "wanted a fold whose test images are not among those"),
        ("targets.orl_vgg16_3.family", "wide", "wanted family deep as of targets.orl_vg"),
        ("models.orl_vgg16_3.width", 0.5, "targets.orl_vgg16_3: wanted width 0.25 as of"),
        ("targets.orl_vgg16_3.set", "orl_1", "is trained on 'orl_3', whose training imag"),
    ],
)
def test_folds_that_do_not_fit_are_refused(path, value, message, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(settings.SettingsError, match="preset 'orl' is not valid") as fault:
        params.parse(changed(path, value, presets.read("orl").content), Path("preset 'orl'"))
    assert message in str(fault.value)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("attacks.fgsm.epz", 0.1, "attacks.fgsm: no key 'epz' (perhaps 'eps'); there are: eps"),
        (
            "attacks.pdg",
            {},
            "attacks.pdg: no attack 'pdg' in lib/camdrift/attacks; there are: apgd",
        ),
        ("attacks.one_pixel.pixels", 2, "attacks.one_pixel.pixels: wanted 1, 3 or 5, got 2"),
        ("attacks.one_pixel.bounds", [1.0, 0.0], "bounds: wanted a range that rises"),
        ("attacks.one_pixel.mutation", [1.0, 0.5], "mutation: wanted a range that does not fall"),
        ("attacks.fgsm.eps", 3.0, "attacks.fgsm.eps: wanted a number of at most 1, got 3.0"),
        ("cells.fgsm.override", {"epz": 1}, "cells.fgsm.override: no key 'epz'"),
        ("retrainings.inspecting.fgsm", {"epz": 1}, "retrainings.inspecting.fgsm: no key 'epz'"),
        (
            "retrainings.inspecting.fgsm",
            {"target": 3},
            "retrainings.inspecting.fgsm.target: wanted null, since models are trained",
        ),
        (
            "retrainings.inspecting.one_pixel",
            {"pixels": 3},
            "retrainings.inspecting.one_pixel.pixels: wanted 1, since",
        ),
    ],
)
def test_settings_of_attacks_are_refused_by_the_attacks_themselves(path, value, message):
    (line,) = attacks.faults(params.parse(changed(path, value)))
    assert message in line


def test_old_keys_are_told_their_new_names():
    content = changed("cells.fgsm.ladder", [1.0])
    content["hardenings"], content["generalisations"] = {"one": {}}, {"two": {"carried": "VGG16"}}
    content["sources"]["vgg16"]["generalisation"] = "two"
    content["retrainings"]["inspecting"]["umap"] = {}
    content["presets"] = {}
    content["detection"]["copies"] = 50
    content["protocols"]["only_strengths"] = {"ladder": "accumulating"}
    with pytest.raises(settings.SettingsError, match="has keys of an earlier version") as fault:
        params.parse(content)
    assert str(fault.value).splitlines()[1:] == [
        "presets: no longer a key; now: each is a file of its own, see stages/presets",
        "cells.fgsm.ladder: no longer a key; now: strengths",
        "protocols.only_strengths.ladder: no longer a key; now: strengths",
        "hardenings: no longer a key; now: retrainings, each with a `study` of paper "
        "klawikowska2020, and signatures",
        "generalisations: no longer a key; now: studies of paper chakraborty2022",
        "generalisations.two.carried: no longer a key; now: transferred",
        "sources.vgg16.generalisation: no longer a key; now: study",
        "retrainings.inspecting.umap: no longer a key; now: signatures.umap",
        "detection.copies: no longer a key; now: detection.detectors.behaviour.copies",
    ]


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (
            "cams.methods",
            ["EigenCAM"],
            "cams.methods: wanted a method, got 'EigenCAM'; there are: ",
        ),
        ("scores.beside", ["psnr"], "scores.beside: wanted a score, got 'psnr'; there are: cosine"),
        ("detection.detectors.odin", {}, "detection.detectors.odin: no detector 'odin'; there are"),
        (
            "detection.detectors.behaviour.probe",
            0,
            "behaviour.probe: wanted 'sensitive', or a layer counted from 1, or from the end, got "
            "0",
        ),
        (
            "detection.detectors.behaviour.probe",
            "last",
            "behaviour.probe: wanted 'sensitive', or a layer counted from 1, or from the end, got "
            "'last'",
        ),
        (
            "detection.detectors.noisecam.brightness",
            [0.5, 0.2],
            "detection.detectors.noisecam.brightness: wanted thresholds that rise, got [0.5, 0.2]",
        ),
        ("detection.detectors.residual", {}, "detectors.residual.variance: wanted, but not there"),
    ],
)
def test_refuses_what_has_no_file_and_what_a_file_does_not_take(path, value, message):
    plan = params.parse(changed(path, value))
    with pytest.raises(settings.SettingsError, match="params.yaml is not valid") as fault:
        checks.everything(plan)
    assert message in str(fault.value)


def test_names_every_fault_at_once():
    content = changed("seed", -1)
    content["micro_batch"] = 0
    with pytest.raises(settings.SettingsError) as fault:
        params.parse(content)
    assert "seed" in str(fault.value)
    assert "micro_batch" in str(fault.value)


def test_accepts_the_committed_file_and_reads_exponents_as_numbers(tmp_path):
    text = (ROOT / "params.yaml").read_text().replace("eps: 0.00784", "eps: 7.84e-3", 1)
    (tmp_path / "params.yaml").write_text(text)
    loaded = params.load(tmp_path / "params.yaml")
    assert loaded.attacks["fgsm"]["eps"] == 0.00784


@pytest.mark.parametrize("text", ["[", "1", "", "a: b: c"])
def test_refuses_what_is_not_a_map_of_settings(text, tmp_path):
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(settings.SettingsError):
        params.load(tmp_path / "params.yaml")


@pytest.mark.parametrize("name", attacks.names())
def test_settings_of_an_attack_are_its_functions_keywords(name):
    parameters = inspect.signature(attacks.perturbing(name)).parameters.values()
    given = {"generators", "limits", "others"}  # by the runner
    keywords = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY} - given
    assert set(attacks.resolved(name, CONTENT["attacks"], {})) == keywords
    assert set(CONTENT["attacks"][name]) == keywords  # each is explained there
    assert all(p.default is p.empty for p in parameters if p.name not in given)


def test_repro_with_a_wrong_setting_stops_before_any_work(tmp_path):
    folder = copy_of_repository(tmp_path, preset=TINY)
    params = folder / "params.yaml"
    params.write_text(params.read_text().replace("attack: fgsm", "attack: fgms", 1))
    start = time.monotonic()
    answer = subprocess.run(
        [sys.executable, "-m", "dvc", "repro"],
        cwd=folder, capture_output=True, text=True,
        env=os.environ | {"CAMDRIFT_PYTHON": sys.executable},
    )  # fmt: skip
    assert time.monotonic() - start < 15  # 5 s on an idle machine
    assert answer.returncode != 0
    said = "no attack 'fgms' in params.yaml (perhaps 'fgsm'); there are: apgd, dlfuzz, fgsm, li"
    assert said in answer.stderr
    assert not (folder / "data").exists()
