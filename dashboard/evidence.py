"""The claims matrix: what every study that is here says of every claim."""

from collections.abc import Sequence

import charts
import pandas as pd
from pandas.io.formats.style import Styler

from camdrift import storage
from camdrift.analysis.tables import as_text
from camdrift.ops import combination, readme
from camdrift.papers import interface
from camdrift.papers.findings import HOLDS, NO_EFFECT, NOT, PARTLY, UNDECIDED
from camdrift.settings import (
    CHAKRABORTY,
    KLAWIKOWSKA,
    RENKHOFF,
    TAN,
    ZHANG,
    Settings,
    SettingsError,
)

LETTERS = {HOLDS: "H", PARTLY: "P", NOT: "N", NO_EFFECT: "0", UNDECIDED: "?"}
MEANINGS = ", ".join(f"{letter} {verdict}" for verdict, letter in LETTERS.items())
# Light enough for black letters, in light and dark; the letters tell them apart without colours.
SHADES = {letter: charts.light(charts.VERDICT_COLOURS[of]) for of, letter in LETTERS.items()}
TITLES = {
    RENKHOFF: "Maps of every layer under attack and noise",
    TAN: "Detectors of single images",
    KLAWIKOWSKA: "Relevance maps and retraining",
    CHAKRABORTY: "Attacks carried over to other networks",
    ZHANG: "Attacks on the maps",
}
FIRST = ("claim", "all sets", "says", "on")  # columns of a matrix, before those of studies
SETS = {
    "photos": "tiles of 64 px", "nips17": "photographs", "cifar10": "CIFAR-10", "orl": "faces",
    "cats_dogs": "cats and dogs", "digits": "digits",
}  # fmt: skip


def gather(settings: Settings) -> tuple[pd.DataFrame, dict[str, str]]:
    """Returns the verdict of each study that is here on each claim, see `combination.evidence`.

    And, by name, a sentence for each study whose results cannot be read.
    """
    place, parts, faults = storage.shown, [], {}
    for name, study in readme.studies(settings, place).items():
        try:
            parts.append(combination.evidence(settings, {name: study}, place))
        except SettingsError as fault:
            faults[name] = f"{fault}."
        except (FileNotFoundError, KeyError):  # a report is being written
            faults[name] = f"'{name}' has no whole results."
    whole = pd.concat(parts) if parts else pd.DataFrame(columns=list(combination.COLUMNS))
    return whole.reset_index(drop=True), faults


def titles(evidence: pd.DataFrame, studies: Sequence[str]) -> dict[str, str]:
    """Returns the title of some studies' columns: images and network, and the study if it must."""
    first = evidence.drop_duplicates("study").set_index("study").loc[[*studies]]
    names = {
        study: f"{SETS.get(row['set'], row['set'])}, {row['network']}"
        for study, row in first.iterrows()
    }
    counts = pd.Series(names).value_counts()
    return {s: f"{name} ({s})" if counts[name] > 1 else name for s, name in names.items()}


def field(row: pd.Series) -> str:
    """Returns a field as text: letter, value with interval, number of images, `!` for doubts."""
    text = f"{LETTERS[row['verdict']]} {as_text(row['value'], row['low'], row['high'])}".rstrip()
    text += f" n={row['images']:.0f}" if pd.notna(row["images"]) else ""
    return text + (" !" if row["flags"] or row["review"] else "")


def matrix(evidence: pd.DataFrame, paper: str) -> pd.DataFrame:
    """Returns the claims of a paper: `claim, all sets, says, on`, and a column for each study."""
    claims = interface.paper(paper).CLAIMS
    own = evidence[evidence["claim"].isin([claim.id for claim in claims])]
    own = own.drop_duplicates(["claim", "study"])  # other seeds count in the verdict of all sets
    own = own.assign(text=[field(row) for _, row in own.iterrows()])
    wide = own.pivot(index="claim", columns="study", values="text")
    order = [study for study in evidence["study"].unique() if study in wide]
    table = combination.combined(evidence, claims).rename(columns={"verdict": "all sets"})
    table["on"] = [
        ", ".join(SETS.get(name, name) for name in sets.split(", ")) for sets in table["on"]
    ]
    return table[[*FIRST]].join(wide[order], on="claim").fillna("")


def shaded(table: pd.DataFrame) -> Styler:
    """Returns a matrix whose fields have the colours of their verdicts."""

    def style(text: object) -> str:
        shade = SHADES.get(str(text)[:1])
        return f"background-color: {shade}; color: #000000" if shade else ""

    return table.style.map(style, subset=list(table.columns[len(FIRST) :]))
