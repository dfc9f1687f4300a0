"""The results of a study in words: its README, and a few lines for the terminal."""

import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from camdrift import storage
from camdrift.analysis.drawing import Figure
from camdrift.analysis.results import Tables
from camdrift.analysis.tables import as_text, markdown
from camdrift.papers import family
from camdrift.papers.findings import NOT_RUN, Claim, under_review

WIDTH = 100  # characters of a line in a terminal


@dataclass(frozen=True)
class Content:
    """The content of a README that depends on the kind of study.

    title: of the study.
    papers: whose claims it judges, in words.
    compared: the comparison, with its images and networks, in sentences.
    headline: texts and tables of the first section.
    claims: of the papers.
    flags: texts of the validity flags.
    figures: name, title and caption of each possible figure.
    about: the content of each table, by its name.
    readings: other readings of its claims, `claim, reading, verdict`.
    beside: texts and tables that stand below the claims.
    """

    title: str
    papers: str
    compared: str
    headline: Sequence[tuple[str, pd.DataFrame]]
    claims: Sequence[Claim]
    flags: Sequence[str]
    figures: Sequence[tuple[str, str, str]]
    about: Mapping[str, str]
    readings: pd.DataFrame | None = None
    beside: Sequence[tuple[str, pd.DataFrame]] = ()


def texts(figures: Iterable[Figure], pictures: Mapping[str, tuple[str, str]]) -> list:
    """Returns name, title and caption of figures and of pictures."""
    return [(figure.name, figure.title, figure.caption) for figure in figures] + [
        (name, *words) for name, words in pictures.items()
    ]


def by_flag(tables: Tables) -> list[str]:
    """Returns the raised flags, each with the claims that it touches."""
    rows = tables["claims"].assign(flag=tables["claims"]["flags"].str.split(", ")).explode("flag")
    claims = rows[rows["flag"] != ""].groupby("flag", sort=False)["id"]
    return [f"{flag}: touches {', '.join(ids)}" for flag, ids in claims]


def readme(
    study: str, tables: Tables, content: Content, *, figures: Path, command: str = ""
) -> str:
    """Returns a study's README in Markdown; links are relative to the folder of its results.

    Args:
        study: its name.
        tables: its tables.
        content: of its kind.
        figures: the folder of its figures.
        command: that rebuilds it; `make repro` of it unless given.
    """
    there = [figure for figure in content.figures if (figures / f"{figure[0]}.png").exists()]
    parts = [
        f"# {content.title}",
        f"Study `{study}`, after {content.papers}. {content.compared} Numbers rest on these images "
        "and networks, not on those of any paper. Other studies: "
        "[findings](../../results/README.md).",
    ]
    for text, table in content.headline:
        parts += [text, markdown(table)]
    parts += ["## Claims", _claims(tables, content.claims, {name for name, *_ in there})]
    parts += _after_holm(tables) + _readings(tables, content.readings)
    for text, table in content.beside:
        parts += [text, markdown(table)]
    parts += ["## Flags", "\n".join(f"- {text}" for text in content.flags) or "None is raised."]
    parts += ["## Figures", "Whiskers and bars are intervals."]
    captions: set[str] = set()
    for name, title, caption in there:
        first = re.split(r"[.;] ", caption)[0].removesuffix(".")
        # The picture shows its title: the text repeats it only if the caption was used before.
        parts.append(
            f"![{title}](figures/{name}.png)\n\n{name}: {title if first in captions else first}."
        )
        captions.add(first)
    lines = [f"- [{name}](tables/{name}.csv): {content.about[name]}." for name in tables]
    parts += ["## Tables", "\n".join(lines), "## Rebuild"]
    parts.append(f"```sh\n{command or f'make repro STUDY={study}'}\n```")
    return "\n\n".join(parts) + "\n"


def terminal(study: str, tables: Tables, content: Content) -> str:
    """Returns a study's results in few words: headline tables, flags, verdicts and files."""
    verdicts = tables["claims"]["verdict"].value_counts()
    lines = [f"\nStudy '{study}': {content.title}"]
    for text, table in content.headline:
        lines += ["", *textwrap.wrap(text.replace("*", ""), WIDTH)]
        for first, *rest in table.itertuples(index=False):
            lines.append(f"  {first}")
            lines += [
                f"    {column:<38} {value}"
                for column, value in zip(table.columns[1:], rest, strict=True)
            ]
    return "\n".join(
        [
            *lines,
            "",
            *(f"Flag:      {text}" for text in content.flags),
            "Claims:    " + ", ".join(f"{n} {verdict}" for verdict, n in verdicts.items()),
            f"Report:    {storage.report(study)}",
            f"Figures:   {storage.results(study, 'figures')}\n",
        ]
    )


def _claims(tables: Tables, claims: Iterable[Claim], figures: set[str]) -> str:
    """Returns the findings on the claims, and the claims that the study does not test."""
    findings, rows, absent = tables["claims"].set_index("id"), [], []
    for claim in claims:
        # Results of earlier revisions lack the claims that came after them.
        if claim.id not in findings.index or findings.loc[claim.id, "verdict"] == NOT_RUN:
            absent.append(claim.id)
            continue
        row = findings.loc[claim.id]
        review = " (under review)" if under_review(claim.id, row["detail"]) else ""
        rows.append(
            {
                "claim": f"{claim.id}: {claim.says}{review}",
                "verdict": row["verdict"],
                "value": as_text(row["value"], row["low"], row["high"]),
                "tables": ", ".join(name for name in claim.tables if name in tables),
                "figures": ", ".join(name for name in claim.figures if name in figures),
            }
        )
    parts = [
        "A verdict compares the value of a statistic with a threshold that was set before any "
        "result. [claims](tables/claims.csv) has both, and details of each value; the tables and "
        "figures named here support it.",
        markdown(pd.DataFrame(rows, columns=["claim", "verdict", "value", "tables", "figures"])),
    ]
    return "\n\n".join([*parts, *([f"Not asked here: {', '.join(absent)}."] if absent else [])])


def _after_holm(tables: Tables) -> list[str]:
    """Returns a paragraph on the verdicts that Holm's correction changes, if they are known."""
    rows = tables["claims"]
    if "after_holm" not in rows:
        return []
    count = int((~rows["verdict"].isin(family.OPEN)).sum())
    if not count:
        return ["No claim is decided: Holm's correction over all claims has nothing to change."]
    changed = rows[rows["verdict"] != rows["after_holm"]]
    texts = ", ".join(f"{row.id} ({row.after_holm})" for row in changed.itertuples()) or "none"
    return [f"Verdicts that Holm's correction over the {count} decided claims changes: {texts}."]


def _readings(tables: Tables, readings: pd.DataFrame | None) -> list[str]:
    """Returns a paragraph on the readings whose verdict differs from the claim's, if there are."""
    if readings is None or readings.empty:
        return []
    verdicts = tables["claims"].set_index("id")["verdict"]
    texts = []
    for claim, rows in readings.groupby("claim", sort=False):
        others = rows[rows["verdict"] != verdicts[claim]]
        if len(others):
            each = (f"{row.reading}: {row.verdict}" for row in others.itertuples())
            texts.append(f"{claim} ({', '.join(each)})")
    names = ", ".join(f"*{name}*" for name in readings["reading"].unique())
    changed = "; ".join(texts) or "none"
    link = "[readings](tables/readings.csv)"
    return [f"Verdicts that differ in other {link} ({names}): {changed}."]
