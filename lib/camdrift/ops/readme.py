"""The generated parts of the READMEs: every number in them comes from a study's tables."""

import os
import re
from pathlib import Path

import pandas as pd

from camdrift import storage
from camdrift.analysis import results
from camdrift.ops import benchmarks, packages, seeds
from camdrift.papers import claims, report
from camdrift.papers.chakraborty2022 import report as generalisation_report
from camdrift.papers.klawikowska2020 import figures as hardening_figures
from camdrift.papers.klawikowska2020 import report as hardening_report
from camdrift.settings import Generalisation, Hardening, Settings, Study, params
from camdrift.storage import files

# Which generated parts stand in which page, in order.
PAGES = {
    Path("README.md"): ("evidence", "verdicts"),
    storage.RESULTS / "README.md": (
        "headline", "oddities", "claims", "switches", "seeds", "methods", "detection_claims",
        "detection", "hardening", "generalisation",
    ),
    storage.RESULTS / "benchmarks" / "README.md": ("benchmarks",),
    Path("stages", "README.md"): ("run", "scaling"),
    Path("lib", "README.md"): ("packages",),
    Path("dashboard", "README.md"): ("browsing",),
}  # fmt: skip
RUN = storage.RESULTS / "run.json"
NOT_RUN = "not run here"


def generated(study: str) -> dict[str, str]:
    """Returns the generated parts by the name of their marker; paths are from the root."""
    chosen = params.load()
    made = results.load(study)
    table = report.headline(made)
    figures = storage.results(study, "figures").as_posix()
    plan = chosen.studies[study]
    models = sorted({cell.model for cell in chosen.cells.values() if cell.study == study})
    cards = {name: files.read_json(storage.model_card(name)) for name in models}
    facts = [
        f"`{name}` ({card['architecture']} at width {card['width']:g}, "
        f"{card['test_accuracy']:.1%} of the test images right)"
        for name, card in cards.items()
    ]
    confidence = f"{chosen.statistics.confidence:.0%}"
    headline = "\n".join(
        [
            f"![Drift by attack or noise, class flipped or not]({figures}/square_own.png)",
            "",
            f"![The same, every map for the clean image's class]({figures}/square_clean.png)",
            "",
            "Drift is 1 minus the cosine similarity to the clean map, here averaged over layers; "
            f"in brackets a {confidence} interval, resampled by source picture.",
            "",
            markdown(report.contrasts(made, plan.headline)),
            "",
            "All cells, at strength 100 %. *Flipped*: share of images whose prediction the "
            "attack changed; then the share for which this survives rounding to 8 bit. *Excess*: "
            "similarity under matched noise minus that under attack, mean over the layers with "
            "few empty maps; 0 means no further than noise. *Layers compromised*: the rule of "
            "the paper (less similar than the median under noise), beside what it says of a "
            "second draw of noise on the same images.",
            "",
            markdown(table),
            "",
            f"Model: {', '.join(facts)}. Written by `make readme` from "
            f"`{storage.results(study, 'tables').as_posix()}`.",
        ]
    )
    table_of_claims = report.claims(made)
    run_here = made["claims"]["paper"] == claims.RENKHOFF
    rests_on = made["claims"]["rests_on"][run_here].unique()
    behind = table_of_claims[
        ["claim", "statistic", "images", "behind it", "behind it, as published"]
    ][run_here]
    shown = ["claim", "says", "printed", "as published", "corrected", "verdict", "flags"]
    claimed = "\n".join(
        [
            markdown(table_of_claims[run_here][shown]),
            "",
            f"Rests on: {'; '.join(rests_on)}.",
            "",
            _folded("What stands behind each verdict", behind),
            "",
            _elsewhere(chosen, made),
        ]
    )
    switched = "\n".join(
        [
            _folded("Every claim under every protocol", report.switches(made, plan.headline)),
            "",
            _folded("Controls", report.controls(made, plan.headline)),
        ]
    )
    parts = {"evidence": _evidence(chosen, study, made), "verdicts": _verdicts(chosen)}
    parts |= {"headline": headline, "claims": claimed, "switches": switched, "run": _run()}
    parts["methods"] = _methods(made, plan.headline, figures)
    parts["detection"] = _detection(made, plan.headline, figures)
    parts["detection_claims"] = _detection_claims(chosen, study, made)
    parts["hardening"] = _hardenings(chosen)
    parts["generalisation"] = _generalisations(chosen)
    parts["benchmarks"] = _benchmarks()
    parts["browsing"] = _browsing()
    parts["packages"] = f"{markdown(packages.table())}\n\n{packages.graph()}"
    parts["scaling"] = _scaling()
    return parts | {"oddities": _oddities(made, plan.headline), "seeds": _seeds(study)}


def _evidence(chosen: Settings, study: str, made: results.Tables) -> str:
    """Returns what each set, network and attack says of the first question, bundled tiles last."""
    plans = {n: p for n, p in results.elsewhere(chosen).items() if isinstance(p, Study)}
    real = {name: results.load(name) for name in plans}
    return "\n".join(
        [
            markdown(report.evidence(real | {study: made})),
            "",
            "At strength 100 %, mean over layers with few empty maps; in brackets intervals "
            "resampled by source picture.",
            "",
            "- *Drift*: 1 minus the cosine similarity to the clean map, over flipped images, every "
            "map for the clean image's class. *Excess*: drift beyond that of noise of the attack's "
            "size.",
            "- *Excess left, class fixed*: the share of the excess that remains when every map "
            "explains the clean image's class instead of its image's own predicted class.",
            "- *Excess of the negated*: the excess of the perturbation times -1, divided by that "
            "of the attack, over all images; then the share of images whose class it changes.",
            "- *Raised noise*: the noise is raised until it flips the class. Its size is divided "
            "by that of the attack; its drift stands beside the attack's at the lowest strength "
            "that flips, each map for its own class.",
        ]
    )


def _verdicts(chosen: Settings) -> str:
    """Returns how many of the papers' claims hold, study by study, those of presets first."""
    studies = results.elsewhere(chosen) | chosen.studies | chosen.hardenings
    rows = []
    for name in studies | chosen.generalisations:
        found = results.load(name)["claims"]["verdict"]
        rows.append({"study": f"`{name}`"} | {v: int((found == v).sum()) for v in claims.VERDICTS})
    return markdown(pd.DataFrame(rows))


def _detection(made: results.Tables, cell: str, figures: str) -> str:
    """Returns how detectors do on the headline cell, and against an attack that knows them."""
    rows = made["detectors"]
    if cell not in set(rows["cell"]):
        return NOT_RUN
    table = report.trial(made, cell)
    size = (
        f"cell `{cell}` at 100 %, {table['attacked / benign'].iloc[0]} attacked and benign images"
    )
    notes = sorted(set(table["note"]) - {""})
    shown = [
        f"![ROC curves]({figures}/roc.png)",
        "",
        f"Attacked images whose class flips against clean and noisy ones: {size}, each detector "
        "fitted, chosen and tested on different images." + "".join(f" {note}." for note in notes),
        "",
        markdown(table.drop(columns=["note", "attacked / benign"])),
    ]
    if len(made["knowing"]):
        shown += ["", _folded("Against an attack that knows the detector", report.knowing(made))]
    return "\n".join(shown)


def _detection_claims(chosen: Settings, study: str, made: results.Tables) -> str:
    """Returns the verdicts on tan2023's claims, study by study, those at its size first."""
    plans = {n: p for n, p in results.elsewhere(chosen).items() if isinstance(p, Study)}
    real = {name: results.load(name) for name in plans}
    columns = {name: report.claims(tables) for name, tables in (real | {study: made}).items()}
    table = columns[study][["claim", "says"]]
    mine = (made["claims"]["paper"] == claims.TAN).to_numpy()
    parts = []
    for name, rows in columns.items():
        table = table.assign(**{name: rows["corrected"] + " " + rows["verdict"]})
        behind = rows.loc[mine, ["claim", "statistic", "images", "behind it"]]
        parts += ["", _folded(f"Behind the verdicts of `{name}`", behind)]
    rests = [
        _rests(name, text)
        for name, rows in columns.items()
        for text in rows.loc[mine, "rests on"].iloc[:1]
    ]
    parts = [markdown(table[mine]), "", "\n\n".join(rests), *parts]
    for name, tables in real.items():
        cell = plans[name].headline
        trial = report.trial(tables, cell).drop(columns=["note"])
        parts += ["", _folded(f"Detectors in `{name}`, cell `{cell}` at 100 %", trial)]
        if len(tables["knowing"]):
            knowing = report.knowing(tables)
            parts += ["", _folded(f"Against an attack that knows them, in `{name}`", knowing)]
        disguise = report.disguise(tables, cell)
        parts += ["", _folded(f"NoiseCAM and confidence in `{name}`", disguise)]
        layers = report.claims(tables)
        layers = layers[(tables["claims"]["paper"] == claims.RENKHOFF).to_numpy()]
        layers = layers[["claim", "says", "corrected", "verdict", "behind it"]]
        parts += ["", _folded(f"Behind the layer study's claims in `{name}`", layers)]
    return "\n".join(parts)


def _hardenings(chosen: Settings) -> str:
    """Returns what hardenings found, and the verdicts on klawikowska2020's claims, side by side.

    Those of presets, on images of the paper's size, first.
    """
    real = {n: p for n, p in results.elsewhere(chosen).items() if isinstance(p, Hardening)}
    plans = real | chosen.hardenings
    made = {name: results.load(name) for name in plans}
    if not made:
        return NOT_RUN
    columns = {name: report.claims(tables) for name, tables in made.items()}
    first = next(iter(columns.values()))
    table = first[["claim", "says", "printed"]]
    for name, rows in columns.items():
        table = table.assign(**{name: (rows["corrected"] + " " + rows["verdict"]).str.strip()})
    figures = storage.results(next(iter(made)), "figures").as_posix()
    parts = [
        f"![Every model attacked itself]({figures}/anew.png)", "", markdown(table), "",
        "\n\n".join(_rests(name, rows["rests on"].iloc[0]) for name, rows in columns.items()),
    ]  # fmt: skip
    for name, tables in made.items():
        behind = columns[name][["claim", "statistic", "images", "flags", "behind it"]]
        parts += [
            "", f"Accuracy in `{name}`, on the test images, and with those added that an attack "
            "changed successfully on the clear model:",
            "", markdown(hardening_report.sets(tables)),
            "", "Every model attacked itself: share of the images that it gets right which the "
            "attack changes.",
            "", markdown(hardening_report.attacks(tables)),
            "", f"The plane of signatures: {hardening_figures.numbers(tables)}.", _added(tables),
            "", _folded(f"Behind the verdicts of `{name}`", behind),
        ]  # fmt: skip
    return "\n".join(parts)


def _elsewhere(chosen: Settings, made: results.Tables) -> str:
    """Returns the layer study's claims on real images and networks beside the bundled ones."""
    plans = {n: p for n, p in results.elsewhere(chosen).items() if isinstance(p, Study)}
    if not plans:
        return f"On real images: {NOT_RUN}."
    mine = (made["claims"]["paper"] == claims.RENKHOFF).to_numpy()
    ours = report.claims(made)[mine]
    table = ours[["claim", "says"]].assign(bundled=ours["corrected"] + " " + ours["verdict"])
    for name in plans:
        rows = report.claims(results.load(name))[mine]
        table[name] = rows["corrected"] + " " + rows["verdict"]
    rests = [_rests(name, results.load(name)["claims"]["rests_on"].iloc[0]) for name in plans]
    text = "The same claims, corrected, on real photographs and ImageNet classifiers at 224 px:"
    return "\n\n".join([text, markdown(table), *rests])


def _generalisations(chosen: Settings) -> str:
    """Returns what generalisations found, and the verdicts on chakraborty2022's claims.

    Those of presets, on images of the paper's kind, first.
    """
    presets = results.elsewhere(chosen).items()
    real = {n: plan for n, plan in presets if isinstance(plan, Generalisation)}
    plans = real | chosen.generalisations
    made = {name: results.load(name) for name in plans}
    if not made:
        return NOT_RUN
    columns = {name: report.claims(tables) for name, tables in made.items()}
    table = next(iter(columns.values()))[["claim", "says", "printed"]]
    for name, rows in columns.items():
        table = table.assign(**{name: (rows["corrected"] + " " + rows["verdict"]).str.strip()})
    figures = storage.results(next(iter(made)), "figures").as_posix()
    parts = [
        f"![Accuracy by eps]({figures}/cha_table_1.png)", "",
        f"![MOD by eps]({figures}/cha_table_3.png)", "", markdown(table), "",
        "\n\n".join(_rests(name, rows["rests on"].iloc[0]) for name, rows in columns.items()),
    ]  # fmt: skip
    tables = generalisation_report
    for name, rows in made.items():
        plan = plans[name]
        behind = columns[name][["claim", "statistic", "images", "flags", "behind it"]]
        parts += [
            "", f"Accuracy in `{name}` under the attack made on {plan.transferred} (Wilson "
            "intervals):",
            "", markdown(tables.accuracy(rows)),
            "", "MOD, last conv layer, in brackets intervals by source picture:",
            "", markdown(tables.mod(rows, plan.explains)),
            "", _folded(f"Accuracy in `{name}` under an attack made on each network itself",
                        tables.accuracy(rows, "own")),
            "", _folded(f"Accuracy in `{name}` under noise of the carried attack's size",
                        tables.accuracy(rows, "noise")),
            *(part for of in plan.ranges[1:] for part in ("", _folded(
                f"Accuracy in `{name}` were eps of pixels in [-1, 1]" if of == "signed" else
                f"Accuracy in `{name}` were eps of pixels in [0, 1]",
                tables.accuracy(rows, of=of)))),
            "", _folded(f"Accuracy lost in `{name}` at the largest eps, every network's attack on "
                        "every network", tables.matrix(rows)),
            "", _folded(f"MOD in `{name}` of images that keep their class",
                        tables.mod(rows, plan.explains, group="class kept")),
            "", _folded(f"VID in `{name}`", tables.vid(rows, plan.explains)),
            "", _folded(f"Networks of `{name}`", rows["networks"]),
            *(["", _folded(f"With and without preprocessing in `{name}`", tables.pairs(rows))]
              if len(rows["pairs"]) else []),
            "", _folded(f"Behind the verdicts of `{name}`", behind),
        ]  # fmt: skip
    return "\n".join(parts)


def _added(made: results.Tables) -> str:
    rows = made["budgets"].dropna(subset="added")
    return (
        "Images added to the training set: "
        + ", ".join(f"{row.added:g} by {row.attack}" for row in rows.itertuples())
        + "."
    )


def _benchmarks() -> str:
    """Returns the races of `make bench`."""
    if not benchmarks.PATH.exists():
        return NOT_RUN
    found = files.read_json(benchmarks.PATH)
    machine = found["environment"]
    missed = benchmarks.missed(found["races"])
    return "\n".join(
        [
            markdown(benchmarks.summary(found["races"])),
            "",
            *(["Missed:", "", missed, ""] if missed else []),
            "Geometric means over sizes and batches, and the worst of them, of the minimum of the "
            f"rounds by the wall clock; {machine['threads']} threads of {machine['cores']} cores, "
            f"torch {machine['packages']['torch']}. {benchmarks.overhead(found)}",
            "",
            _folded("Every race", benchmarks.each(found["races"])),
        ]
    )


def _browsing() -> str:
    """Returns what the dashboard's pages take."""
    found = benchmarks.found()
    if "browsing" not in found:
        return NOT_RUN
    return "\n".join(
        [
            "Seconds that a page's script takes, at first and after a choice, on the default study "
            "and on one made of its images by repetition; the browser draws on top of that:",
            "",
            markdown(benchmarks.browsing(found["browsing"])),
        ]
    )


def _scaling() -> str:
    """Returns what workers and images take."""
    found = benchmarks.found()
    if "scaling" not in found:
        return NOT_RUN
    shown = benchmarks.scaling(found["scaling"])
    return "\n\n".join(text for title, table in shown for text in (title, markdown(table)))


def _methods(made: results.Tables, cell: str, figures: str) -> str:
    """Returns whether the method that makes the maps matters."""
    if "methods" not in made:
        return NOT_RUN
    return "\n".join(
        [
            f"![Excess drift by layer and method]({figures}/methods.png)",
            "",
            f"Excess at 100 %, mean over the layers with few empty maps, cell `{cell}`:",
            "",
            markdown(report.by_method(made, cell)),
        ]
    )


def _folded(title: str, table: pd.DataFrame) -> str:
    return f"<details><summary>{title}</summary>\n\n{markdown(table)}\n\n</details>"


def _oddities(made: results.Tables, cell: str) -> str:
    """Returns whether the two oddities of the paper's figure 5 appear, protocol by protocol."""
    table = report.switches(made, cell).set_index("claim").loc[["A5", "A6"]].T.reset_index()
    known = {claim.id: claim for claim in claims.CLAIMS}
    names = ["protocol", *(f"{known[i].says} ({known[i].holds_if})" for i in ("A5", "A6"))]
    return markdown(table.set_axis(names, axis=1))


def _seeds(study: str) -> str:
    found = seeds.read(study)
    if found is None:
        return NOT_RUN
    return f"{markdown(seeds.table(found))}\n\n" + _folded(
        "Claims under each seed", seeds.verdicts(found)
    )


def _run() -> str:
    if not RUN.exists():
        return NOT_RUN
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
    return (
        f"{minutes:.1f} minutes of stages on {machine['cores']} cores, {machine['system']}, Python "
        f"{machine['python']}, torch {machine['packages']['torch']}{code}{changed if code else ''}"
    )


def _rests(name: str, on: str) -> str:
    """Returns what a study's verdicts rest on and, where it is known, what they took."""
    file = storage.results(name, "run.json")
    took = f" {_time(files.read_json(file))}." if file.exists() else ""
    return f"`{name}`: {on}.{took}"


def markdown(table: pd.DataFrame) -> str:
    """Returns a table as GitHub Markdown; a '|' in a text is escaped."""
    rows = [list(table.columns), ["---"] * len(table.columns), *table.astype(str).values.tolist()]
    return "\n".join(
        f"| {' | '.join(str(v).replace('|', chr(92) + '|') for v in r)} |" for r in rows
    )


def pages(study: str) -> dict[Path, str]:
    """Returns the pages with their generated parts anew.

    Raises:
        ValueError: a marker is missing in a page.
    """
    parts = generated(study)
    return {
        page: filled(page, {name: _from(page, parts[name]) for name in names})
        for page, names in PAGES.items()
    }


def _from(page: Path, part: str) -> str:
    """Returns a part whose links to results lead there from a page."""
    return re.sub(
        rf"\]\(({storage.RESULTS.as_posix()}/[^)]+)\)",
        lambda link: f"]({Path(os.path.relpath(link[1], page.parent)).as_posix()})",
        part,
    )


def filled(page: Path, parts: dict[str, str]) -> str:
    """Returns a page's text with each part put between its markers.

    Raises:
        ValueError: a marker is missing.
    """
    text = page.read_text(encoding="utf-8")
    for name, part in parts.items():
        begin, end = f"<!-- begin {name} -->\n", f"\n<!-- end {name} -->"
        before, marked, rest = text.partition(begin)
        _, ended, after = rest.partition(end)
        if not marked or not ended:
            raise ValueError(f"wanted the markers '{name}' in {page}: {begin}...{end}")
        text = before + begin + part + end + after
    return text
