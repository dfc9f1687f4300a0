"""The generated parts of the READMEs: every number in them comes from published tables."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from camdrift import settings, storage
from camdrift.analysis import results
from camdrift.analysis.tables import markdown
from camdrift.ops import combination, markers, packages, robustness, seeds, speeds, zoo
from camdrift.papers import claims, findings, interface
from camdrift.papers.readme import Content
from camdrift.papers.readme import readme as render
from camdrift.papers.renkhoff2022 import report
from camdrift.papers.tan2023 import adaptive
from camdrift.papers.tan2023 import report as detector_report
from camdrift.settings import DetectorStudy, LayerStudy, Settings, Study, params, presets
from camdrift.storage import files

# Which generated parts stand in which page, in order.
PAGES = {
    Path("README.md"): ("answer",),
    storage.RESULTS / "README.md": (
        "studies", "evidence", "verdicts", "claims", "published", "oddities", "seeds", "methods",
        "detection_claims", "detectors", "map_claims", "retraining", "transfer",
    ),
    storage.RESULTS / "benchmarks" / "README.md": ("benchmarks", "robustness", "zoo"),
    Path("stages", "README.md"): ("run", "scaling"),
    Path("lib", "README.md"): ("packages",),
    Path("dashboard", "README.md"): ("browsing",),
}  # fmt: skip
RUN = storage.RESULTS / "run.json"
ANSWER = "## The answer so far"  # in the README, the section that begins with the findings


def generated() -> dict[str, str]:
    """Returns the generated parts by the name of their marker; paths are from the root."""
    plan = params.load()
    layers = _by_paper(plan, settings.RENKHOFF)
    study = next(name for name in plan.studies if name in layers)  # params.yaml's first
    tables = layers[study]
    headline = plan.study(study, LayerStudy).headline
    return {
        "answer": markdown(combined(plan)),
        "evidence": _evidence(layers),
        "verdicts": _verdicts(plan),
        "studies": _studies(plan),
        "claims": _claims(plan, settings.RENKHOFF, SYMBOLS),
        "published": _published(tables),
        "oddities": _oddities(tables, headline),
        "seeds": _seeds(plan),
        "methods": _methods(tables, headline, results.published(study, "figures").as_posix()),
        "detection_claims": _claims(plan, settings.TAN),
        "detectors": _detectors(plan),
        "map_claims": _claims(plan, settings.ZHANG, figures=["drift_against_flip"]),
        "retraining": _claims(plan, settings.KLAWIKOWSKA, figures=["success_by_model"]),
        "transfer": _claims(
            plan, settings.CHAKRABORTY, figures=["chakraborty_table_1", "chakraborty_table_3"]
        ),
        "run": _run(),
        "benchmarks": speeds.races(),
        "robustness": robustness.text(),
        "zoo": zoo.text(),
        "browsing": speeds.pages(),
        "scaling": speeds.workers(),
        "packages": f"{markdown(packages.table())}\n\n{packages.graph()}",
    }  # fmt: skip


def answer() -> str:
    """Returns the list of findings in the README of this folder, as Markdown; "" without one."""
    file = Path("README.md")
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    _, _, section = text.partition(f"\n{ANSWER}\n")
    lists = [part for part in section.split("\n\n") if part.startswith("- ")]
    return lists[0].strip() if lists else ""


def studies(plan: Settings, place: results.Place = results.published) -> dict[str, Study]:
    """Returns all studies whose tables are there, by name, those of presets first."""
    there = results.elsewhere(plan, place) | plan.studies
    return {name: study for name, study in there.items() if place(name, "tables").is_dir()}


def _by_paper(plan: Settings, paper: str) -> dict[str, results.Tables]:
    """Returns the tables of a paper's studies, those of presets, of the paper's size, first."""
    return {n: _load(n) for n, study in studies(plan).items() if study.paper == paper}


def _load(study: str) -> results.Tables:
    return results.load(study, results.published)


def _studies(plan: Settings) -> str:
    """Returns the list of all studies, with links to their READMEs."""
    rows = []
    for name, study in studies(plan).items():
        verdicts = _load(name)["claims"]["verdict"]
        link = results.published(name, "README.md").as_posix()
        rows.append(
            {
                "study": f"[{name}]({link})",
                "what": study.title,
                "after": study.paper,
                "claims asked": int((verdicts != findings.NOT_RUN).sum()),
            }
        )
    return markdown(pd.DataFrame(rows))


def _claims(plan: Settings, paper: str, *texts: str, figures: Sequence[str] = ()) -> str:
    """Returns the verdicts on a paper's claims, study by study, with figures of the first study.

    Texts stand below the table.
    """
    by_study = _by_paper(plan, paper)
    if not by_study:
        return speeds.NOT_RUN
    folder = results.published(next(iter(by_study)), "figures").as_posix()
    table = pd.DataFrame()
    for name, tables in by_study.items():
        rows = claims.texts(tables)
        if table.empty:
            table = rows[["claim", "says", "statistic", "printed"]]
            seen = rows["where"].str.contains("seen") | rows["claim"].isin(combination.CHANGED)
            table = table.assign(says=rows["says"].where(~seen, rows["says"] + " (*seen*)"))
        verdicts = (rows["corrected"] + " " + rows["verdict"]).str.strip().set_axis(rows["claim"])
        # Results of earlier revisions lack the claims that came after them.
        table = table.assign(**{name: table["claim"].map(verdicts).fillna(findings.NOT_RUN)})
    return "\n\n".join(
        [
            *(f"![{TEXTS[name]}]({folder}/{name}.png)" for name in figures),
            markdown(table),
            *texts,
            *_reviewed(by_study),
            *(_rests(name, tables) for name, tables in by_study.items()),
        ]
    )


def _reviewed(by_study: dict[str, results.Tables]) -> list[str]:
    """Returns why verdicts of studies are under review, a sentence for each study and reason."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for name, tables in by_study.items():
        for claim, reason in _under_review(name, tables).items():
            reasons.setdefault((name, reason), []).append(claim)
    return [
        f"*Under review* in `{name}`, {', '.join(ids)}: {reason}."
        for (name, reason), ids in reasons.items()
    ]


def _under_review(study: str, tables: results.Tables) -> dict[str, str]:
    """Returns why each claim of a study is under review, for those that are."""
    run = tables["claims"].query("verdict != @findings.NOT_RUN")
    reasons = {
        claim.id: combination.review(study, claim.id, claim.detail) for claim in run.itertuples()
    }
    return {claim: reason for claim, reason in reasons.items() if reason}


TEXTS = {
    "success_by_model": "Share of images that attacks made on each model itself change",
    "chakraborty_table_1": "Accuracy by eps", "chakraborty_table_3": "MOD by eps",
    "drift_against_flip": "Drift of maps against the share of flipped images, by attack",
}  # fmt: skip
SYMBOLS = (
    "*c_a*, *c_g*, *c_u*: cosine similarity of a layer's map to the clean image's map, under "
    "attack, under noise of its size, and for unrelated clean images. *e* = c_g - c_a: the excess, "
    "paired by image. *Holm*: p-values corrected for the number of layers. Means are over images "
    "that the attack flips, at strength 1, unless said; in brackets intervals resampled by source "
    "picture."
)


def _published(tables: results.Tables) -> str:
    """Returns the layer study's claims as the public code has them, beside corrected."""
    rows = claims.texts(tables)
    rows["corrected"] += " " + rows["verdict"]
    return markdown(rows[["claim", "as published", "corrected"]])


def _evidence(layers: dict[str, results.Tables]) -> str:
    """Returns what each set, network and attack says of the first question, bundled tiles last.

    Of studies that `corrected` decides: under other protocols noise is not of the attack's size.
    """
    layers = {k: v for k, v in layers.items() if v["switches"]["protocol"].iloc[0] == "corrected"}
    return "\n".join(
        [
            markdown(report.evidence(layers)),
            "",
            "At strength 100 %, mean over layers with few empty maps; in brackets intervals "
            f"resampled by source picture. {_left_out(layers)}",
            "",
            "- *Drift*: 1 minus the cosine similarity to the clean map, over flipped images, every "
            "map for the clean image's class. *Excess*: drift beyond that of noise of the attack's "
            "size.",
            "- *Excess left, class fixed*: the share of the excess that remains when every map "
            "explains the clean image's class instead of its own.",
            "- *Excess of the negated*: the excess of the perturbation times -1, divided by that "
            "of the attack, over all images; then the share of images whose class it changes.",
            "- *Raised noise*: of images that the attack flips at some strength, but not at the "
            "lowest, and that noise of 64 times its size or less flips (n): ratio of the mean "
            "sizes of the weakest noise that flips, in steps of a quarter, and of the weakest "
            "attack, in steps of two; both drifts, each map for its own class.",
        ]
    )


def _left_out(layers: dict[str, results.Tables]) -> str:
    """Returns a sentence for each study of whose layers fewer than half have few empty maps."""
    texts = []
    for name, tables in layers.items():
        used = tables["shares"]["layers"]
        count = tables["groups"]["layer"].nunique() - 1  # without their mean
        if 2 * used.max() < count:
            texts.append(
                f"Of the {count} layers of `{name}` {used.min()} to {used.max()} are left."
            )
    return " ".join(texts)


def combined(plan: Settings) -> pd.DataFrame:
    """Returns each claim's verdict over all studies, see `combination.combined`."""
    matrix = combination.evidence(plan, studies(plan))
    return combination.combined(matrix, combination.every_claim(settings.PAPERS))


def _verdicts(plan: Settings) -> str:
    """Returns how many of the papers' claims hold, study by study, those of presets first."""
    rows = []
    for name in studies(plan):
        verdicts = _load(name)["claims"]["verdict"]
        reviewed = _under_review(name, _load(name))
        rows.append(
            {"study": f"`{name}`"}
            | {v: int((verdicts == v).sum()) for v in findings.VERDICTS}
            | {"of these under review": len(reviewed)}
        )
    return markdown(pd.DataFrame(rows))


def _detectors(plan: Settings) -> str:
    """Returns the AUROC of each detector, study by study, and what they have of the confidence."""
    columns, readings = {}, {}
    for name, tables in _by_paper(plan, settings.TAN).items():
        own = results.settings_of(name, results.published)
        headline = own.study(name, DetectorStudy).headline
        evaluation = detector_report.evaluation(tables, headline).drop_duplicates("detector")
        columns[f"`{name}`"] = evaluation.set_index("detector")["AUROC"]
        attacked = adaptive.texts(tables)
        for cell, rows in attacked.groupby("cell", sort=False) if len(attacked) else ():
            column = f"`{name}`, adaptive {own.cells[str(cell)].attack}"
            columns[column] = rows.set_index("detector").get("AUROC, adaptive", "")
        disguise = detector_report.disguise(tables, headline).set_index("reading")
        readings[f"`{name}`"] = disguise["rank correlation, all images"]
    if not columns:
        return speeds.NOT_RUN
    order = columns[f"`{name}`"].index
    table = pd.DataFrame(columns).loc[order].fillna("").rename_axis("detector").reset_index()
    ranks = pd.DataFrame(readings).rename_axis("reading of NoiseCAM").reset_index()
    return "\n\n".join(
        [
            "AUROC, images whose class DLFuzz flips (or an adaptive attack) against "
            "clean and noisy ones, at 100 %; 0.5 is chance. Rates and thresholds: `detectors.csv` "
            "of each study.",
            markdown(table),
            "Rank correlation of NoiseCAM's number of clusters with 1 minus the model's top "
            "probability, all test images:",
            markdown(ranks),
        ]
    )


def _methods(tables: results.Tables, cell: str, figures: str) -> str:
    """Returns whether the method that makes the maps matters."""
    if "methods" not in tables:
        return speeds.NOT_RUN
    return "\n".join(
        [
            f"![Excess drift by layer and method]({figures}/excess_by_method.png)",
            "",
            f"Excess at 100 %, mean over the layers with few empty maps, cell `{cell}`:",
            "",
            markdown(report.by_method(tables, cell)),
        ]
    )


def _oddities(tables: results.Tables, cell: str) -> str:
    """Returns whether the two oddities of the paper's figure 5 appear, protocol by protocol."""
    table = claims.by_protocol(tables, cell).set_index("claim").loc[["A5", "A6"]].T.reset_index()
    known = {claim.id: claim for claim in interface.paper(settings.RENKHOFF).CLAIMS}
    names = ["protocol", *(f"{known[i].says} ({known[i].holds_if})" for i in ("A5", "A6"))]
    return markdown(table.set_axis(names, axis=1))


def _seeds(plan: Settings) -> str:
    """Returns the spread of the studies that have run with several seeds."""
    spreads = {study: spread for study in plan.studies if (spread := seeds.read(study)) is not None}
    if not spreads:
        return speeds.NOT_RUN
    numbers = seeds.table(pd.concat(spreads.values(), ignore_index=True))
    verdicts = pd.concat({study: seeds.verdicts(spread) for study, spread in spreads.items()})
    verdicts = verdicts.reset_index(level=0, names="study")
    return f"{markdown(numbers)}\n\n" + speeds.folded("Claims under each seed", verdicts)


def _run() -> str:
    if not RUN.exists():
        return speeds.NOT_RUN
    facts = files.read_json(RUN)
    stages = pd.DataFrame(facts["stages"])
    groups = stages.assign(stage=stages["stage"].str.partition("@")[0])
    table = groups.groupby("stage", sort=False).agg(
        runs=("seconds", "size"), seconds=("seconds", "sum"), peak=("peak_memory_mb", "max")
    )
    table = table.rename(columns={"peak": "peak memory, MB"}).round(0).astype(int).reset_index()
    return f"{markdown(table)}\n\nIn all {_time(facts)}."


def _time(facts: dict) -> str:
    """Returns the minutes that stages took, on what, and by which code; see `run.last_runs`."""
    machine = facts["environment"]
    minutes = sum(stage["seconds"] for stage in facts["stages"]) / 60
    code = f", code of revision {machine['revision'][:7]}" if machine["revision"] else ""
    changed = f" and {machine['changed_files']} changed files" if machine["changed_files"] else ""
    limited = " (CAMDRIFT_PROCESSOR=any)" if machine.get("processor") == "any" else ""
    return (
        f"{minutes:.1f} minutes of stages on {machine['cores']} cores{limited}, "
        f"{machine['system']}, Python "
        f"{machine['python']}, torch {machine['packages']['torch']}{code}{changed if code else ''}"
    )


def _rests(name: str, tables: results.Tables) -> str:
    """Returns what a study's verdicts rest on and, where it is known, what they took."""
    file = results.published(name, "run.json")
    took = f" {_time(files.read_json(file))}." if file.exists() else ""
    return f"`{name}`: {tables['claims']['rests_on'].iloc[0]}.{took}"


def pages() -> dict[Path, str]:
    """Returns the pages with their generated parts anew, and the README of every study.

    Raises:
        ValueError: a marker is missing in a page.
    """
    parts = generated()
    filled_pages = {
        page: markers.filled(page, {name: markers.linked(page, parts[name]) for name in names})
        for page, names in PAGES.items()
    }
    return filled_pages | {
        results.published(name, "README.md"): text
        for name, text in study_readmes(params.load()).items()
    }


def study_readmes(plan: Settings) -> dict[str, str]:
    """Returns the README of each study whose published tables are there."""
    return {
        name: study_readme(name, results.published, command=_command(plan, name))
        for name in studies(plan)
    }


def study_readme(name: str, place: results.Place, *, command: str) -> str:
    """Returns the README of a study whose tables are there; `place` as of `results.load`."""
    tables, figures = results.load(name, place), place(name, "figures")
    return render(name, tables, content(name, place), figures=figures, command=command)


def content(name: str, place: results.Place) -> Content:
    """Returns the content of the README of a study whose tables are there."""
    own = results.settings_of(name, place)
    paper = interface.paper(own.studies[name].paper)
    return paper.content(name, own, results.load(name, place))


def _command(plan: Settings, study: str) -> str:
    """Returns the command that builds a study."""
    if study in plan.studies:
        return f"make repro STUDY={study}"
    preset = presets.builder(study)
    if preset is None:
        return f"make study NAME=<file> STUDY={study}"
    folders = "".join(f" {folder}=<folder>" for folder in presets.read(preset).needs)
    return f"make study NAME={preset} STUDY={study}{folders}"
