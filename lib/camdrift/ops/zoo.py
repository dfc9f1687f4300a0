"""The zoo of `make zoo`, as the generated part of the benchmarks' README."""

import pandas as pd

from camdrift import storage
from camdrift.analysis.tables import markdown
from camdrift.ops.speeds import NOT_RUN, folded
from camdrift.storage import files

EXPLAINED = storage.RESULTS / "benchmarks" / "zoo.json"
BESIDE_PEERS = storage.RESULTS / "benchmarks" / "zoo_peers.json"
EQUAL = 1e-5  # of a map's largest value


def text() -> str:
    """Returns which networks are explained, why others are not, and which peers agree."""
    if not EXPLAINED.exists():
        return NOT_RUN
    content = files.read_json(EXPLAINED)
    rows = pd.DataFrame(content["rows"])
    rows = rows.reindex(columns=["network", "px", "hook_points", "first", "sides", "empty",
                                 "logits_error", "seconds", "refused"])  # fmt: skip
    explained = rows[rows["refused"].isna()]
    whole = explained[explained["empty"] == 0]
    parts = [
        f"{len(whole)} of {len(rows)} networks are explained at every hook point with maps that "
        f"are finite and not empty; logits differ from the network's own by at most "
        f"{explained['logits_error'].max():.1e} of the largest. {_rest(content)}",
        _others(rows, explained),
        folded(
            "Every network", rows.drop(columns="refused").astype(object).fillna("-").astype(str)
        ),
        _peers(),
    ]
    return "\n\n".join(part for part in parts if part)


def _rest(content: dict) -> str:
    rest = content["count"] - len(content["rows"])
    return f"{rest} more were not run." if rest else ""


def _others(rows: pd.DataFrame, explained: pd.DataFrame) -> str:
    """Returns the networks with an empty map, and those that are refused, as a list."""
    empty = explained[explained["empty"] > 0]
    lines = [
        f"- {row['network']}: {row['empty']:.0f} of {row['hook_points']:.0f} maps are empty"
        for _, row in empty.iterrows()
    ]
    refused = rows[rows["refused"].notna()]
    lines += [f"- {row['network']}: {row['refused']}" for _, row in refused.iterrows()]
    return "\n".join(lines)


def _peers() -> str:
    """Returns how many maps of each peer are ours, and why others are not there."""
    if not BESIDE_PEERS.exists():
        return ""
    rows = files.read_json(BESIDE_PEERS)["rows"]
    peers = [key for key in rows[0] if isinstance(rows[0][key], list)]
    table = []
    for peer in peers:
        outcomes = [outcome for row in rows for outcome in row.get(peer, [])]
        errors = [outcome for outcome in outcomes if isinstance(outcome, float)]
        table.append(
            {
                "library": peer,
                "maps asked for": len(outcomes),
                "equal": sum(error <= EQUAL for error in errors),
                "other": sum(error > EQUAL for error in errors),
                "of another shape, or an error": len(outcomes) - len(errors),
                "largest difference": f"{max(errors):.1e}",
            }
        )
    return (
        f"Other libraries on {len(rows)} of these networks, Grad-CAM at the first, the middle and "
        "the last hook point that is a module's output, in double precision:\n\n"
        + markdown(pd.DataFrame(table))
    )
