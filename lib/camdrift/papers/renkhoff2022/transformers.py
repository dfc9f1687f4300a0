"""The judge of the claim that transformers drift as convolutional networks do."""

from camdrift.analysis.evidence import Evidence
from camdrift.papers.findings import NOT_RUN, Finding, nothing, verdict_of_all
from camdrift.papers.renkhoff2022.verdicts import depth, every_strength, excess


def as_conv_networks(evidence: Evidence) -> Finding:
    """Judges F1: A1 and A8 hold by block; the value is A1's, the detail has A1f and A4, too."""
    layers = evidence.results.record.layers
    if "tokens" not in layers or not layers["tokens"].all():
        return nothing("the maps are not of a transformer's blocks", NOT_RUN)
    findings = {
        "A1": excess(evidence, 1.0),
        "A8": every_strength(evidence),
        "A1f": excess(evidence, 1.0, success=False),
        "A4": depth(evidence),
    }
    first = findings["A1"]
    verdict = verdict_of_all([first.verdict, findings["A8"].verdict])
    detail = ", ".join(
        f"{claim}: {finding.value:.3f} {finding.verdict}" for claim, finding in findings.items()
    )
    return Finding(first.value, first.low, first.high, verdict, f"{detail}; by block")


JUDGES = {"F1": as_conv_networks}
