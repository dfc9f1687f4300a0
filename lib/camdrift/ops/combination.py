"""Combination: a claim's verdict over all studies that speak of it, one vote for each image set.

Within a set, networks and seeds are combined first. A claim holds there if more than half of them
hold and none contradicts; it does not hold in the mirrored case; it is not decided if none decides,
and mixed otherwise. Over sets, a claim holds if at least two thirds of the deciding sets hold and
none contradicts; it does not hold in the mirrored case; it is mixed if some hold and some
contradict, or if no set decides and the networks or seeds of one contradict each other; otherwise
it is not decided. *Holds in part* counts as half a hold. Where every network or set holds at least
in part, the rule that was written before the results says mixed or not decided; this study says
*holds in part*. The bundled tiles have no vote, unless no other set speaks.
"""

import math
import re
from collections.abc import Mapping, Sequence

import pandas as pd

from camdrift import storage
from camdrift.analysis import results
from camdrift.ops import seeds
from camdrift.papers import interface
from camdrift.papers.findings import (
    HOLDS,
    NO_EFFECT,
    NOT,
    NOT_RUN,
    PARTLY,
    UNDECIDED,
    Claim,
    under_review,
)
from camdrift.settings import Settings, Study

MIXED = "mixed"
WEIGHTS = {HOLDS: 1.0, PARTLY: 0.5}
AGAINST = (NOT, NO_EFFECT)
BUNDLED = ("photos", "digits")  # kinds of the sets without a vote
# Sets whose results were known when the claims marked as seen were written; these are decided on
# other sets alone.
KNOWN = frozenset({"photos", "nips17", "orl", "cats_dogs"})
# Claims whose rule changed when results of these sets were known: a layer's median under noise
# decides on compromise, before it a quantile of held-out noise did.
CHANGED = frozenset({"A9", "A10", "A11", "A12"})
# Studies that an earlier revision built: why claims of them are judged anew when they are rebuilt.
_DETECTION = (
    "thresholds were fitted at each of three strengths, behaviour deviation read the third layer "
    "from the end, and adaptive attacks stood beside noise of another size"
)
EARLIER = {
    "nips17_squeezenet1_1": {
        "A15": "it was reported alone; classifiers of ImageNet are judged now"
    },
    "nips17_squeezenet1_1_detectors": dict.fromkeys(("B1", "B2", "B3", "B4", "B8"), _DETECTION),
    "nips17_resnet18_detectors": dict.fromkeys(("B1", "B2", "B3", "B4"), _DETECTION),
}
COLUMNS = (
    "claim", "study", "set", "votes", "network", "seed", "value", "low", "high", "images",
    "verdict", "flags", "review",
)  # fmt: skip


def within_set(verdicts: Sequence[str]) -> str:
    """Returns the verdict of one image set from those of its networks and seeds."""
    verdicts = [verdict for verdict in verdicts if verdict != NOT_RUN]
    if not verdicts:
        return NOT_RUN
    if set(verdicts) == {UNDECIDED}:
        return UNDECIDED
    held = sum(WEIGHTS.get(verdict, 0) for verdict in verdicts)
    against = sum(verdict in AGAINST for verdict in verdicts)
    half = len(verdicts) / 2
    if not against and held > half and HOLDS in verdicts:
        return HOLDS
    if set(verdicts) <= {HOLDS, PARTLY}:
        return PARTLY
    if not held and against > half:
        return NOT
    return MIXED


def contradict(verdicts: Sequence[str]) -> bool:
    """Returns whether some of a set's networks and seeds hold or hold in part, and some do not."""
    return not {*verdicts}.isdisjoint(WEIGHTS) and not {*verdicts}.isdisjoint(AGAINST)


def over_sets(by_set: Mapping[str, str]) -> str:
    """Returns the verdict over image sets from that of each."""
    deciding = [verdict for verdict in by_set.values() if verdict not in (UNDECIDED, NOT_RUN)]
    held = sum(WEIGHTS.get(verdict, 0) for verdict in deciding)
    against = deciding.count(NOT)
    if held and against:
        return MIXED
    if deciding and held >= len(deciding) * 2 / 3:
        return HOLDS
    if deciding and set(deciding) <= {HOLDS, PARTLY}:
        return PARTLY
    return NOT if deciding and against >= len(deciding) * 2 / 3 else UNDECIDED


def over_networks(verdicts: Mapping[str, Sequence[str]]) -> str:
    """Returns the verdict over image sets from those of each set's networks and seeds."""
    if not verdicts:
        return NOT_RUN
    sets = {name: within_set(part) for name, part in verdicts.items()}
    undecided = set(sets.values()) <= {MIXED, UNDECIDED}
    if undecided and any(contradict(part) for part in verdicts.values()):
        return MIXED
    return over_sets(sets)


def review(study: str, claim: str, detail: str) -> str:
    """Returns why a study's verdict on a claim is to be judged anew, or ''."""
    return under_review(claim, detail) or EARLIER.get(study, {}).get(claim, "")


def evidence(
    plan: Settings, studies: Mapping[str, Study], place: results.Place = results.published
) -> pd.DataFrame:
    """Returns the verdict of each study on each claim that was asked: `COLUMNS`.

    A study that ran with other seeds, too, has a row for each; of those, values have no interval.

    Args:
        plan: of params.yaml, which names the bundled sets.
        studies: whose results are there.
        place: of these results, as of `results.load`.
    """
    rows = []
    for name in studies:
        own = results.settings_of(name, place)
        parts = (getattr(own, part, {}) for part in ("cells", "targets", "retrainings"))
        items = {key: item for part in parts for key, item in part.items()}
        # Results that were built here are of this revision.
        earlier = place is results.published or not storage.is_own(name)
        headline = getattr(own.studies[name], "headline", None)  # the cell that decides
        items = {headline: items[headline]} if headline in items else items
        of = _base(next(iter(items.values())).set)
        votes = not any(_is_bundled(plan, item.set) for item in items.values())
        models = sorted({item.model for item in items.values()})
        network = models[0] if len(models) == 1 else f"{len(models)} networks"
        asked: list[dict] = []
        for claim in results.load(name, place)["claims"].to_dict("records"):
            facts = {"claim": claim["id"], "study": name, "set": of, "votes": votes}
            facts |= {"network": network, "seed": own.seed}
            facts |= {key: claim[key] for key in COLUMNS if key in claim}
            facts["review"] = review(name if earlier else "", claim["id"], claim["detail"])
            if claim["verdict"] != NOT_RUN:
                asked.append(facts)
        rows += asked + _other_seeds(name, asked)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _other_seeds(study: str, own: Sequence[dict]) -> list[dict]:
    """Returns the rows of a study's other seeds, see `seeds`, on the claims of its own."""
    spread = seeds.read(study)
    if spread is None or not own or own[0]["seed"] not in set(spread["seed"]):
        return []
    known = {facts["claim"]: facts for facts in own}
    verdicts = spread[~spread["verdict"].isin(["", NOT_RUN]) & (spread["seed"] != own[0]["seed"])]
    none = dict.fromkeys(("low", "high", "images"), math.nan) | {"flags": ""}
    return [
        known[row.claim] | none | {"seed": row.seed, "value": row.value, "verdict": row.verdict}
        for row in verdicts.rename(columns={"name": "claim"}).itertuples()
        if row.claim in known
    ]


def _base(name: str) -> str:
    """Returns the name of a set without its fold."""
    return re.sub(r"_\d$", "", name)


def _is_bundled(plan: Settings, name: str) -> bool:
    return name in plan.sets and plan.sets[name].kind in BUNDLED


def combined(matrix: pd.DataFrame, claims: Sequence[Claim]) -> pd.DataFrame:
    """Returns each claim's verdict over all image sets: `claim, says, verdict, on`.

    Args:
        matrix: as `evidence` returns it.
        claims: of all papers.
    """
    rows = []
    for claim in claims:
        every = matrix[matrix["claim"] == claim.id]
        own = every[every["review"] == ""]
        voting = own[own["votes"].astype(bool)]
        alone = voting.empty and len(own)
        parts = (own if alone else voting).groupby("set", sort=False)["verdict"]
        sets = {str(name): list(part) for name, part in parts}
        verdict = over_networks(sets)
        on = "tiles" if alone else ", ".join(sets)
        if len(every) and not len(own):
            verdict, on = "under review", ", ".join(every["set"].unique())
        elif ("seen" in claim.where or claim.id in CHANGED) and sets:
            fresh = {name: each for name, each in sets.items() if name not in KNOWN}
            verdict = f"seen ({verdict})" if not fresh else over_networks(fresh)
        rows.append({"claim": claim.id, "says": claim.says, "verdict": verdict, "on": on or "-"})
    return pd.DataFrame(rows)


def every_claim(papers: Sequence[str]) -> list[Claim]:
    """Returns the claims of papers, in their order."""
    return [claim for paper in papers for claim in interface.paper(paper).CLAIMS]
