"""dvc.yaml says what the scripts really read and write."""

import ast
import os
import re
import subprocess
import sys
from itertools import chain
from pathlib import Path

import dvc.api
import networkx as nx
import pytest
from dvc.repo import Repo
from dvc.repo.reproduce import plan_repro
from ruamel.yaml import YAML

from camdrift import settings, storage
from camdrift.papers import interface
from camdrift.settings import imports, params
from conftest import ORDER, ROOT, TINY, copy_of_repository, stage_names

PIPELINE = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
LIBRARY = ROOT / "lib" / "camdrift"
ATTACKS = LIBRARY / "attacks"
# A stage that needs a module of these needs nearly all: each is one dep.
WHOLE = {LIBRARY / name for name in ("settings", "storage", "pipeline", "models")}
# Their members are imported by discovery: who needs such a package needs all of it.
DISCOVERED = [LIBRARY / name for name in ("explain/methods", "scores", "detectors")]


def template(name: str) -> dict:
    return PIPELINE[name].get("do", PIPELINE[name])


def imported(path: Path) -> set[Path]:
    """Modules of the library that a file imports, wherever in it; packages where they are whole.

    Who imports a package of discovered members, or one of them, imports all.
    """
    if path in WHOLE:
        return set().union(*(imported(module) for module in path.glob("*.py"))) - {path}
    imports = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            parts = node.module.split(".")
            if parts[0] == "camdrift":
                names = [[*parts[1:], alias.name] for alias in node.names] + [parts[1:]]
                for package in DISCOVERED:
                    if any(
                        package in [LIBRARY.joinpath(*name[:n]) for n in (1, 2)] for name in names
                    ):
                        imports |= set(package.glob("*.py"))
                modules = (LIBRARY.joinpath(*name).with_suffix(".py") for name in names if name)
                imports |= {p for p in modules if p.is_file() and p.parent not in WHOLE}
                imports |= {LIBRARY / name[0] for name in names if name} & WHOLE
                imports |= {ATTACKS / "__init__.py"} if ["attacks"] in names else set()
    return imports


def reached(*starts: Path) -> set[Path]:
    modules, waiting = set(), [*starts]
    while waiting:
        file = waiting.pop()
        for path in imported(file) - modules:
            modules.add(path)
            waiting.append(path)
    return modules


def deps_of(*starts: Path) -> set[str]:
    """The dependencies of files, as dvc.yaml lists them."""
    return deps_of_files(reached(*starts))


def deps_of_files(files: set[Path]) -> set[str]:
    """Files of the library, as dvc.yaml lists them: a package that is whole is one."""
    # An attack's file is chosen by its cells.
    for package in {path.parent for path in files} - {LIBRARY, ATTACKS}:
        modules = set(package.glob("*.py" if package in DISCOVERED else "[a-z]*.py"))
        if package in DISCOVERED or modules <= files and not any(package.glob("*/__init__.py")):
            files = files - modules | {package}
    return {path.relative_to(ROOT).as_posix() for path in files}


def code_deps(name: str) -> set[str]:
    return {dep for dep in template(name)["deps"] if dep.startswith("lib/")}


def wanted_deps(name: str) -> set[str]:
    """The library's files that a stage depends on, those of the attacks that it is given, too."""
    every = sorted(ATTACKS.glob("[a-z]*.py"))
    extra = {"attack": every, "check": every,
             "retrain": [ATTACKS / f"{kind}.py" for kind in settings.ATTACKING]}  # fmt: skip
    named = {path.relative_to(ROOT).as_posix() for path in extra.get(name, [])}
    if name == "report":
        return reported_deps()
    deps = deps_of(ROOT / "stages" / f"{name}.py", *extra.get(name, [])) - named
    if name == "check":
        own = {"lib/camdrift/attacks", imports.OWN.as_posix()}
        return deps - {"lib/camdrift/attacks/__init__.py"} | own
    return deps | ({"lib/camdrift/attacks/${item.attack}.py"} if name == "attack" else named)


def reported_deps() -> set[str]:
    """The dependencies of the reports of all papers: the paper's own package, and what they share.

    The paper's module `study` is imported by its name.
    """
    modules = set()
    for paper in settings.PAPERS:
        own = LIBRARY / "papers" / paper
        files = reached(ROOT / "stages" / "report.py", own / "study.py")
        assert {path.parent for path in files if path.parent.parent == own.parent} == {own}
        modules |= files
    shared = {path for path in modules if path.parent.parent != LIBRARY / "papers"}
    return deps_of_files(shared) | {"lib/camdrift/papers/${item.paper}"}


@pytest.mark.parametrize("name", ORDER)
def test_deps_are_the_imports(name):
    assert code_deps(name) == wanted_deps(name)
    assert f"stages/{name}.py" in template(name)["deps"]


def test_no_attack_imports_another():
    # It would miss that one's file in the deps of its cells.
    attacks = sorted(ATTACKS.glob("[a-z]*.py"))
    assert not reached(*attacks).intersection(attacks)


def test_every_stage_waits_for_check():
    assert all(str(storage.CHECKED) in template(n)["deps"] for n in PIPELINE if n != "check")


def test_scripts_read_no_setting_that_they_do_not_declare():
    names = set(settings.Settings.model_fields)
    for name in ORDER[1:]:
        text = (ROOT / "stages" / f"{name}.py").read_text()
        read = set(re.findall(r"\b(?:settings|params|chosen)\.(\w+)", text))
        read = (read | ({"studies"} if "study" in read else set())) & names
        read |= {"sources"} if "sources_on" in text else set()
        if name == "report":
            read |= {part for paper in settings.PAPERS for part in interface.paper(paper).READS}
        read |= {"micro_batch", "precision"} if "stage.calling" in text else set()
        read |= {"training_threads"} if "stage.training_threads" in text else set()
        read |= {"cells"} if "stage.cell" in text else set()
        read |= {"protocols"} if "stage.protocols" in text else set()
        assert read == {param.partition(".")[0] for param in template(name)["params"]}, name


def test_outs_are_the_paths_of_artifacts():
    def outs(name: str) -> set[str]:
        return set(chain(*(template(name).get(kind, []) for kind in ("outs", "metrics", "plots"))))

    key, study = "${key}", "${item.study}"
    assert outs("check") == {storage.CHECKED.as_posix(), storage.MODULES.as_posix()}
    assert outs("fetch") == {
        storage.set_folder(key).as_posix(), storage.set_datasheet(key).as_posix()
    }  # fmt: skip
    assert outs("train") == {
        storage.model_folder(key).as_posix(), storage.model_card(key).as_posix()
    }  # fmt: skip
    cell = {name: {storage.cell_folder(study, key, name).as_posix()} for name in ORDER}
    evaluation = "${item.evaluation}"
    cell["detect"] = {storage.cell_folder(evaluation, key, "detect").as_posix()}
    cell["score"] |= {storage.cell_folder(evaluation, key, "similarity").as_posix()}
    cell["score"] |= {storage.cell_folder(study, key, "record").as_posix()}
    cell["noise"] |= {storage.cell_folder(study, key, "coverage").as_posix()}
    for name in ("attack", "noise", "cam", "score", "detect"):
        assert outs(name) == cell[name]
    kinds = {storage.model_folder(settings.retrained_model(key, k)) for k in settings.RETRAINED}
    assert outs("retrain") == cell["retrain"] | {path.as_posix() for path in kinds}
    assert outs("signatures") == cell["signatures"]
    parts = ("records", "tables", "figures", "metrics.json", "settings.json", "README.md")
    results = {storage.results(key, part).as_posix() for part in parts}
    for name, part in (("gradient_sign", "signs"), ("transfer", "transferred")):
        assert outs(name) == {storage.end_folder(study, part, key).as_posix()}
    assert outs("report") == results | {storage.report(key).as_posix()}


def test_the_layers_wait_for_no_detector_and_no_report_for_another():
    graph = Repo(ROOT).index.graph  # an edge leads from a stage to one that it depends on
    needs = {
        stage.addressing: {other.addressing for other in nx.descendants(graph, stage)}
        for stage in graph
        if stage.addressing.startswith("report@")
    }
    groups = {name: {other.partition("@")[0] for other in needs[name]} for name in needs}
    assert groups["report@layers"] == {
        "check", "fetch", "train", "attack", "noise", "cam", "score"
    }  # fmt: skip
    assert groups["report@detectors"] == groups["report@layers"] | {"detect"}
    assert groups["report@maps"] == groups["report@detectors"]  # its cells' `detect` has no work
    assert groups["report@inspecting"] == {"check", "fetch", "train", "retrain", "signatures"}
    assert groups["report@generalising"] == {"check", "fetch", "train", "gradient_sign", "transfer"}
    cells = params.load(ROOT / "params.yaml").cells.items()
    own = {f"detect@{key}" for key, cell in cells if cell.evaluation == "detectors"}
    assert needs["report@detectors"] >= own
    data = [dep for dep in template("report")["deps"] if dep.startswith("data/")]
    assert data == [storage.CHECKED.as_posix(), "data/studies/${key}"]


def test_each_study_is_reported_before_the_next_is_begun():
    graph = Repo(ROOT).index.graph
    order = [stage.addressing for stage in plan_repro(graph, list(graph))]
    stages: set[str] = set()
    for study in params.load(ROOT / "params.yaml").studies:
        node = next(stage for stage in graph if stage.addressing == f"report@{study}")
        needs = {other.addressing for other in nx.descendants(graph, node)}
        before = set(order[: order.index(f"report@{study}")])
        assert before == needs | stages, study
        stages = before | {f"report@{study}"}


def test_stages_are_what_params_imply():
    plan = params.load(ROOT / "params.yaml")
    expected = {"check"}
    expected |= {f"fetch@{name}" for name in plan.sets}
    expected |= {f"train@{name}" for name in plan.models}
    expected |= {f"report@{name}" for name in plan.studies}
    for group in ("attack", "noise", "cam", "score", "detect"):
        expected |= {f"{group}@{name}" for name in plan.cells}
    for group in ("retrain", "signatures"):
        expected |= {f"{group}@{name}" for name in plan.retrainings}
    expected |= {f"gradient_sign@{name}" for name in plan.sources}
    expected |= {f"transfer@{name}" for name in plan.targets}
    names = stage_names(ROOT)
    assert set(names) == expected
    assert len(names) == len(expected) <= 85


def test_declared_settings_are_what_dvc_says(monkeypatch):
    monkeypatch.chdir(ROOT)
    # Two seconds each: one of each way to declare a setting.
    for name in ("train@vgg16_quarter", "attack@dlfuzz", "retrain@inspecting", "transfer@xception"):
        assert params.declared(name) == dvc.api.params_show(stages=name), name
    for name in ("attack@nothing", "nothing", "nothing@fgsm", "check@fgsm"):
        with pytest.raises(settings.SettingsError, match=name):
            params.declared(name)


def test_stage_scripts_are_short():
    for file in (ROOT / "stages").glob("*.py"):
        assert len(file.read_text().splitlines()) <= 50, file.name


def test_make_works_in_a_folder_whose_name_has_blanks(tmp_path):
    """`make repro` up to DVC, which is a stand-in here: it says that it was asked."""
    folder = copy_of_repository(tmp_path / "my own work", preset=TINY)
    programs = folder / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name, text in (("python", f'exec "{sys.executable}" "$@"'), ("dvc", 'echo "asked: $@"')):
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    (folder / ".venv" / ".installed").touch()
    process = subprocess.run(
        ["make", "repro"], cwd=folder, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(folder / "lib")},
    )  # fmt: skip
    assert "asked: repro\n" in process.stdout, process.stderr
