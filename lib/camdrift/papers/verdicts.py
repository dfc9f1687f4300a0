"""Findings of a cell on each claim, under each of its protocols."""

from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd

from camdrift.analysis.evidence import Evidence
from camdrift.analysis.flags import by_claim
from camdrift.analysis.results import Results
from camdrift.papers.findings import FINDING_COLUMNS, NOT_RUN, Claim, nothing
from camdrift.papers.renkhoff2022.verdicts import JUDGES
from camdrift.settings import FlagSettings, StatisticsSettings


def switch_table(
    results: Results, settings: StatisticsSettings, flags: FlagSettings, *, seed: int
) -> pd.DataFrame:
    """Returns the one-switch table: the finding of each protocol of a cell on each claim.

    Columns: `protocol, claim, value, low, high, verdict, images, detail`.
    """
    rows = []
    images = results.attacked.images
    successes = int(images["success"].sum())
    numbers = {"A1f": len(images) - successes} | dict.fromkeys(("A13", "A14", "A15"), len(images))
    none = nothing("no successful adversarial")
    for name, protocol in results.protocols.items():
        evidence = Evidence(results, protocol, settings, flags, seed)
        for claim, judge in JUDGES.items():
            finding = judge(evidence) if successes else none
            number = numbers.get(claim, successes)
            rows.append((name, claim, finding.value, finding.low, finding.high, finding.verdict,
                         number, finding.detail))  # fmt: skip
    return pd.DataFrame(rows, columns=FINDING_COLUMNS)


def claims_table(
    claims: Iterable[Claim],
    switches: pd.DataFrame,
    *,
    rests_on: Callable[[str], str],
    flags: pd.DataFrame,
) -> pd.DataFrame:
    """Returns the claims table: every claim, published and corrected.

    Args:
        claims: those that get a row.
        switches: as `switch_table` returns it, of one cell.
        rests_on: a claim's id -> the images and the model behind its verdict.
        flags: as `flags.cell_flags` returns it, of the same cell.

    Returns:
        A row a claim: its facts, then `value, low, high, verdict, images, detail, flags` under the
        corrected protocol and, with the prefix `published_`, under the published one; `rests_on`.
    """
    findings = switches.set_index(["protocol", "claim"])
    rows = []
    for claim in claims:
        row: dict = dict(claim.facts)
        has_finding = False
        for protocol, prefix in (("as_published", "published_"), ("corrected", "")):
            is_found = (protocol, claim.id) in findings.index
            facts = findings.loc[(protocol, claim.id)] if is_found else {}
            has_finding |= is_found
            for key in ("value", "low", "high"):
                row[f"{prefix}{key}"] = facts.get(key, np.nan)
            row[f"{prefix}verdict"] = facts.get("verdict", NOT_RUN)
            row[f"{prefix}images"] = facts.get("images", 0)
            row[f"{prefix}detail"] = facts.get("detail", "")
            touching = by_claim(flags, protocol) if is_found else {}
            row[f"{prefix}flags"] = touching.get(claim.id, "")
        row["rests_on"] = rests_on(claim.id) if has_finding else ""
        rows.append(row)
    return pd.DataFrame(rows)
