"""Tables of networks under transferred attacks: accuracy, PSNR, MOD, VID, network by network."""

from collections.abc import Iterator
from itertools import product

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from camdrift.analysis.tables import rounded
from camdrift.papers.chakraborty2022.comparison import (
    PLAIN,
    PREPROCESSED,
    Comparison,
    Tried,
    levels,
    paired,
)
from camdrift.scores import psnr, vid
from camdrift.settings import MEAN, RANGES
from camdrift.settings.section import in_words
from camdrift.storage import (
    CLEAN,
    MADE_ON,
    NOISE,
    OWN_ATTACK,
    POLICIES,
    TRANSFERRED,
    TRANSFERRED_NOISE,
    UNRELATED,
    controlled,
)

# What the tables hold, in a line each.
ABOUT = {
    "networks": "a row a network: family, input in px, convs, mean channels, parameters",
    "accuracy": "images right by network, attack, range and eps, with Wilson's interval",
    "matrix": "accuracy and accuracy lost by network attacked and network tried",
    "psnr": "PSNR in dB by attack and eps, clipped and not",
    "controls": "flips and MOD at the largest eps: attacks, noise, controls, unrelated pairs",
    "mod": "MOD by network, attack, class explained, eps and group; share of empty maps",
    "nissim": "quartiles of single images' NISSIM by network and eps",
    "vid": "VID by network, and quartiles of single images'",
    "layers": "MOD at every layer, at the largest eps",
    "pairs": "accuracy with and without preprocessing, image by image, attack and noise",
    "readings": "each claim as it is judged and as further readings have it, side by side",
    "claims": "what the paper says, statistic, threshold, value, verdict",
}
NO = "none"  # attack, or control
ATTACKS = (OWN_ATTACK, TRANSFERRED, TRANSFERRED_NOISE)


def tables(comparison: Comparison) -> dict[str, pd.DataFrame]:
    """Returns the tables of a study by name; all but `psnr` have `network`.

    networks: `preprocessing, family, size` (input, px), `convs, channels` (mean of the convs),
        `parameters` (batch norms folded), `images`.
    accuracy: tables 1 and 2 of the paper: `preprocessing, attack, range, eps, images, right,
        accuracy, low, high` (Wilson), `accuracy_8bit` (after rounding to 256 levels).
    matrix: `preprocessing, made_on, eps, accuracy, lost` (since clean).
    psnr: `preprocessing, attack, range, eps, psnr, unclipped` in dB, figure 3.
    controls: at the largest eps, of 'own' and 'transferred': `preprocessing, attack, control`
        ('none' for the attack itself; noise of its size, or a control), `explains, images,
        accuracy, flipped` (share whose class is not the clean image's), `empty, mod, low, high`.
        The control 'unrelated' compares clean maps of other pictures.
    mod: table 3: `preprocessing, attack, explains, eps, group, images, empty` (share of pairs left
        out), `mod, low, high, blank` (MOD with empty maps taken as they are). Groups are all
        images, those whose class the attack keeps, and the others. Network 'mean' is the paper's
        last row.
    nissim, vid: figure 4, both readings, by `explains`: quartiles, 5 % and 95 % of the images. VID
        is over the eps that claims are judged on, see `Comparison.judged`.
    layers: at the largest eps: `preprocessing, attack, explains, depth, layer, side` (the
        shorter one, px)`, images, mod`.
    pairs: preprocessed against plain, image by image: `attack` ('clean', 'transferred', or 'noise'
        of its size), `eps, images, plain, preprocessed, difference, low, high`, and the images that
        one of them alone gets right.
    """
    frames = {
        "networks": pd.DataFrame(_networks(comparison)),
        "accuracy": pd.DataFrame(_accuracy(comparison)),
        "matrix": pd.DataFrame(_matrix(comparison)),
        "psnr": pd.DataFrame(_psnr(comparison)),
        "controls": pd.DataFrame(_controls(comparison)),
        "mod": _mod(comparison),
        "nissim": pd.DataFrame(_nissim(comparison)),
        "vid": pd.DataFrame(_vid(comparison)),
        "layers": pd.DataFrame(_layers(comparison)),
        "pairs": pd.DataFrame(_pairs(comparison), columns=PAIRS),
    }
    return {name: rounded(table) for name, table in frames.items()}


def metrics(tables: dict[str, pd.DataFrame]) -> dict[str, dict[str, float]]:
    """Returns a study's summary: accuracy and MOD under the transferred attack, by network."""
    summary: dict[str, dict[str, float]] = {}
    for row in tables["accuracy"].query("attack in ('clean', 'transferred')").itertuples():
        key = f"{row.network}, {row.preprocessing}"
        summary.setdefault(key, {})[f"accuracy at {row.range} {row.eps:g}"] = row.accuracy
    for row in tables["mod"].query("attack == 'transferred' and group == 'all'").itertuples():
        key = f"{row.network}, {row.preprocessing}"
        if not np.isnan(row.mod):
            summary.setdefault(key, {})[f"MOD at {row.eps:g}, {row.explains}"] = row.mod
    return summary


def _networks(comparison: Comparison) -> Iterator[dict]:
    for (network, arm), tried in comparison.tried.items():
        facts = {k: v for k, v in tried.parts[0].facts.items() if k != "zero_gradients"}
        if isinstance(facts["size"], list):
            facts["size"] = in_words(facts["size"]).removesuffix(" px")
        yield {"network": network, "preprocessing": arm, "family": tried.family or "", **facts,
               "images": len(tried.images)}  # fmt: skip


def _accuracy(comparison: Comparison) -> Iterator[dict]:
    for (network, arm), tried in comparison.tried.items():
        for kind, of, eps in tried.met:
            if kind not in ATTACKS:
                continue
            right = tried.right(kind, eps, of=of)
            test = binomtest(int(right.sum()), len(right))
            range_ = test.proportion_ci(comparison.settings.confidence, method="wilson")
            yield {"network": network, "preprocessing": arm, "attack": kind if eps else CLEAN,
                   "range": of, "eps": eps, "images": len(right), "right": int(right.sum()),
                   "accuracy": right.mean(), "low": range_.low, "high": range_.high,
                   "accuracy_8bit": tried.right_8bit(kind, eps, of=of).mean()}  # fmt: skip


def _matrix(comparison: Comparison) -> Iterator[dict]:
    for (network, arm), tried in comparison.tried.items():
        clean = tried.right(OWN_ATTACK, 0.0, of=comparison.range).mean()
        names = {OWN_ATTACK: network, TRANSFERRED: comparison.plan.transferred}
        for kind, of, eps in tried.met:
            made_on = names.get(kind, kind.removeprefix(MADE_ON))
            twice = kind == TRANSFERRED and network == comparison.plan.transferred
            attacked = kind in names or kind.startswith(MADE_ON)
            if not attacked or of != comparison.range or not eps or twice:
                continue
            reached = tried.right(kind, eps, of=of).mean()
            yield {"network": network, "preprocessing": arm, "made_on": made_on, "eps": eps,
                   "accuracy": reached, "lost": clean - reached}  # fmt: skip


def _psnr(comparison: Comparison) -> Iterator[dict]:
    for arm in comparison.arms:
        tried = next(iter(comparison.networks(arm).values()))
        rows = pd.concat([part.outcomes for part in tried.parts])
        rows = rows[rows["attack"].isin([TRANSFERRED, TRANSFERRED_NOISE]) & (rows["eps"] > 0)]
        for (kind, of, eps), part in rows.groupby(["attack", "range", "eps"], sort=False):
            yield {"preprocessing": arm, "attack": kind, "range": of, "eps": eps,
                   "psnr": part["psnr"].mean(),
                   "unclipped": psnr.ratio_at_eps(RANGES[of] * eps)}  # fmt: skip


def _controls(comparison: Comparison) -> Iterator[dict]:
    eps = comparison.plan.eps[-1]
    for (network, arm), tried in comparison.tried.items():
        clean = tried.predictions(OWN_ATTACK, 0.0, of=comparison.range)
        for attack, control, kind in controls(comparison, network, tried):
            flipped = tried.predictions(kind, eps, of=comparison.range) != clean
            facts = {"network": network, "preprocessing": arm, "attack": attack,
                     "control": control}  # fmt: skip
            right = tried.right(kind, eps, of=comparison.range)
            rates = {"images": len(clean), "accuracy": right.mean(), "flipped": flipped.mean()}
            for explains in POLICIES:
                unseen = np.full(len(clean), np.nan)
                shift = tried.shift(kind, eps, explains) if tried.has(kind) else unseen
                yield facts | {"explains": explains} | rates | _shifted(comparison, tried, shift)
        for explains in POLICIES if tried.has(TRANSFERRED) else ():
            yield {"network": network, "preprocessing": arm, "attack": NO, "control": UNRELATED,
                   "explains": explains, "images": len(clean),
                   **_shifted(comparison, tried, tried.unrelated(explains))}  # fmt: skip


def _shifted(comparison: Comparison, tried: Tried, shift: np.ndarray) -> dict[str, float]:
    """Returns the share of empty maps, and MOD with its interval; nothing where none is known."""
    if np.isnan(shift).all():
        return {}
    mean, resamples = comparison.means(shift[:, None], tried.images)
    low, high = comparison.interval(resamples[:, 0])
    return {"empty": np.isnan(shift).mean(), "mod": mean[0], "low": low, "high": high}


def controls(comparison: Comparison, network: str, tried: Tried) -> Iterator[tuple[str, str, str]]:
    """Yields attacks at the largest eps, each beside its noise and controls.

    The attack that they belong to; the control, `NO` for none; the name of both in `Tried`. The
    network that the transferred attack is made on has these alone.
    """
    kinds = dict.fromkeys(kind for kind, _, eps in tried.met if eps)
    for attack in (OWN_ATTACK, TRANSFERRED):
        if attack not in kinds or (attack, network) == (OWN_ATTACK, comparison.plan.transferred):
            continue
        yield attack, NO, attack
        if attack == TRANSFERRED:
            yield attack, NOISE, TRANSFERRED_NOISE
        start = controlled(attack, "")
        for kind in kinds:
            if kind.startswith(start):
                yield attack, kind.removeprefix(start), kind


def _mod(comparison: Comparison) -> pd.DataFrame:
    rows = []
    for (network, arm), tried in comparison.tried.items():
        clean = tried.predictions(OWN_ATTACK, 0.0, of=comparison.range)
        for kind in ATTACKS:
            for eps in comparison.plan.eps if tried.has(kind) else ():
                same_class = tried.predictions(kind, eps, of=comparison.range) == clean
                everyone = np.ones(len(same_class), bool)
                groups = {"all": everyone, "class kept": same_class, "class lost": ~same_class}
                for explains in POLICIES:
                    shift = tried.shift(kind, eps, explains)
                    blank = tried.shift(kind, eps, explains, blank=True)
                    for group, mask in groups.items():
                        values = np.where(mask, shift, np.nan)
                        mean, resamples = comparison.means(values[:, None], tried.images)
                        low, high = comparison.interval(resamples[:, 0])
                        empty = np.isnan(shift[mask])
                        some = bool(mask.any())
                        rows.append({
                            "network": network, "preprocessing": arm, "attack": kind,
                            "explains": explains, "eps": eps, "group": group,
                            "images": int(np.isfinite(values).sum()),
                            "empty": empty.mean() if some else np.nan, "mod": mean[0],
                            "low": low, "high": high,
                            "blank": blank[mask].mean() if some else np.nan,
                        })  # fmt: skip
    table = pd.DataFrame(rows)
    keys = ["preprocessing", "attack", "explains", "eps", "group"]
    mean = table[table["group"] == "all"].groupby(keys, sort=False)[["mod", "blank"]].mean()
    return pd.concat([table, mean.reset_index().assign(network=MEAN)], ignore_index=True)


def _quartiles(values: np.ndarray) -> dict[str, float]:
    known = values[np.isfinite(values)]
    ends = np.quantile(known, [0.05, 0.25, 0.5, 0.75, 0.95]) if len(known) else np.full(5, np.nan)
    return dict(zip(("low", "q1", "median", "q3", "high"), ends, strict=True))


def _nissim(comparison: Comparison) -> Iterator[dict]:
    for (network, arm), tried in comparison.tried.items():
        for kind in ATTACKS:
            every = product(POLICIES, comparison.plan.eps) if tried.has(kind) else ()
            for explains, eps in every:
                values = tried.shift(kind, eps, explains)
                yield {"network": network, "preprocessing": arm, "attack": kind,
                       "explains": explains, "eps": eps,
                       "images": int(np.isfinite(values).sum()),
                       **_quartiles(values)}  # fmt: skip


def _vid(comparison: Comparison) -> Iterator[dict]:
    for (network, arm), tried in comparison.tried.items():
        for kind in (kind for kind in ATTACKS if tried.has(kind)):
            for explains, with_clean in product(POLICIES, (False, True)):
                every = levels(comparison, tried, kind, explains, with_clean=with_clean)
                places = [i + with_clean for i in comparison.judged]
                each = vid.spread(every[:, [0] * with_clean + places])
                mean, resamples = comparison.means(each[:, None], tried.images)
                low, high = comparison.interval(resamples[:, 0])
                yield {"network": network, "preprocessing": arm, "attack": kind,
                       "explains": explains,
                       "levels": "with the clean image" if with_clean else "eps above 0",
                       "images": int(np.isfinite(each).sum()), "vid": mean[0], "vid_low": low,
                       "vid_high": high, **_quartiles(each)}  # fmt: skip


def _layers(comparison: Comparison) -> Iterator[dict]:
    eps = comparison.plan.eps[-1]
    for (network, arm), tried in comparison.tried.items():
        facts = tried.parts[0].layers
        for kind in (kind for kind in ATTACKS if tried.has(kind)):
            for explains in POLICIES:
                values = tried.by_layer(kind, eps, explains)
                for i, layer in enumerate(facts.itertuples()):
                    known = np.isfinite(values[:, i])
                    yield {"network": network, "preprocessing": arm, "attack": kind,
                           "explains": explains, "depth": i + 1, "layer": layer.label,
                           "side": min(layer.height, layer.width), "images": int(known.sum()),
                           "mod": values[known, i].mean() if known.any() else np.nan}  # fmt: skip


PAIRS = ("network", "attack", "eps", "images", "plain", "preprocessed", "difference", "low", "high",
         "only_plain", "only_preprocessed")  # fmt: skip


def _pairs(comparison: Comparison) -> Iterator[tuple]:
    eps_of = {CLEAN: [0.0]} | dict.fromkeys((TRANSFERRED, TRANSFERRED_NOISE), comparison.plan.eps)
    for network in comparison.networks(PREPROCESSED):
        for kind, eps in ((kind, eps) for kind, every in eps_of.items() for eps in every):
            plain, other = paired(comparison, network, eps, kind=kind)
            change = other.astype(float) - plain
            images = comparison.tried[network, PLAIN].images
            mean, resamples = comparison.means(change[:, None], images)
            low, high = comparison.interval(resamples[:, 0])
            yield (network, kind, eps, len(plain), plain.mean(), other.mean(), mean[0], low, high,
                   int((plain & ~other).sum()), int((other & ~plain).sum()))  # fmt: skip
