"""The claims table of a study: stored as numbers, and as texts."""

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import pandas as pd

from camdrift.analysis.flags import by_claim
from camdrift.analysis.results import Tables
from camdrift.analysis.tables import as_text
from camdrift.papers.findings import NOT_RUN, Claim, under_review


def table(
    claims: Iterable[Claim],
    switches: pd.DataFrame,
    *,
    rests_on: Callable[[str], str],
    flags: pd.DataFrame | None = None,
    after_holm: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Returns the claims table: every claim, published and corrected.

    Args:
        claims: those that get a row.
        switches: findings, a row for each protocol and claim.
        rests_on: a claim's id -> the images and the model behind its verdict.
        flags: as `flags.cell_flags` returns it, of the same cell; None for no flags.
        after_holm: verdicts corrected for all claims, see `family.after_holm`; None if unknown.

    Returns:
        A row a claim: its facts, then `value, low, high, verdict, images, detail, flags` under the
        corrected protocol and, with the prefix `published_`, under the published one; `rests_on`;
        and `after_holm`, if known.
    """
    findings = switches.set_index(["protocol", "claim"])
    rows = []
    for claim in claims:
        row: dict = dict(claim.facts)
        has_finding = False
        for protocol, prefix in (("as_published", "published_"), ("corrected", "")):
            is_present = (protocol, claim.id) in findings.index
            facts = findings.loc[(protocol, claim.id)] if is_present else {}
            has_finding |= is_present
            for key in ("value", "low", "high"):
                row[f"{prefix}{key}"] = facts.get(key, np.nan)
            row[f"{prefix}verdict"] = facts.get("verdict", NOT_RUN)
            row[f"{prefix}images"] = facts.get("images", 0)
            row[f"{prefix}detail"] = facts.get("detail", "")
            touching = by_claim(flags, protocol) if is_present and flags is not None else {}
            row[f"{prefix}flags"] = touching.get(claim.id, "")
        row["rests_on"] = rests_on(claim.id) if has_finding else ""
        if after_holm is not None:
            row["after_holm"] = after_holm.get(claim.id, NOT_RUN)
        rows.append(row)
    return pd.DataFrame(rows)


def deciding(switches: pd.DataFrame, headline: str) -> dict[str, str]:
    """Returns the cell that decides each claim: the headline cell, or else the first judged one.

    A cell that was not run decides only where no other was.

    Args:
        switches: findings, a row for each cell, protocol and claim.
        headline: the headline cell.
    """
    order = (switches["cell"] != headline) + 2 * (switches["verdict"] == NOT_RUN)
    ranked = switches.assign(order=order).sort_values("order", kind="stable")
    return ranked.drop_duplicates("claim").set_index("claim")["cell"].to_dict()


def texts(tables: Tables, claims: Iterable[Claim] = ()) -> pd.DataFrame:
    """Returns the claims table as texts: published and corrected, one row for each claim.

    Claims under review are marked, with the reason among their flags.

    Args:
        tables: the tables.
        claims: those whose figures the column `figures` names.
    """
    figures, rows = {claim.id: claim.figures for claim in claims}, []
    for _, claim in tables["claims"].iterrows():
        was_run = claim["verdict"] != NOT_RUN
        review = under_review(claim["id"], claim["detail"]) if was_run else ""
        flagged = [claim["flags"], f"under review: {review}"] if review else [claim["flags"]]
        published, corrected = (
            as_text(claim[f"{p}value"], claim[f"{p}low"], claim[f"{p}high"])
            for p in ("published_", "")
        )
        rows.append(
            {
                "claim": claim["id"],
                "of": claim["paper"],
                "says": claim["says"] + (" (under review)" if review else ""),
                "where": claim["where"],
                "statistic": f"{claim['statistic']}; holds if {claim['holds_if']}",
                "printed": claim["printed"],
                "as published": f"{published} {claim['published_verdict']}".strip(),
                "corrected": corrected,
                "verdict": claim["verdict"],
                "after Holm": claim.get("after_holm", ""),
                "images": claim["images"],
                "behind it": claim["detail"],
                "behind it, as published": claim["published_detail"],
                "flags": "; ".join(filter(None, flagged)),
                "rests on": claim["rests_on"],
                "figures": ", ".join(figures.get(claim["id"], ())),
            }
        )
    return pd.DataFrame(rows)


def by_protocol(tables: Tables, cell: str) -> pd.DataFrame:
    """Returns the one-switch table as texts: a row for each claim, a column for each protocol."""
    return _wide(tables["switches"].query("cell == @cell"), "protocol")


def by_reading(tables: Tables, cell: str) -> pd.DataFrame:
    """Returns the table `readings` as texts: a row for each claim, a column for each reading."""
    return _wide(tables["readings"].query("cell == @cell"), "reading")


def _wide(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    text = [
        f"{as_text(row.value, row.low, row.high)} {row.verdict}".strip()
        for row in rows.itertuples()
    ]
    wide = rows.assign(text=text).pivot(index="claim", columns=column, values="text").fillna("")
    order = rows["claim"].drop_duplicates(), rows[column].drop_duplicates()
    return wide.loc[order[0], order[1]].reset_index().rename_axis(columns=None)
