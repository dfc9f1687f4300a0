"""The papers' claims as data: what each says, where, and what decides it.

Statistics and thresholds were fixed before any result; a change of one is a finding of its own
and wants its reason in the commit. c_a, c_g and c_u are the cosine of a layer's map to its clean
map under attack, under matched noise, and for unrelated clean images; e = c_g - c_a is the excess,
paired by image. Unless said otherwise: Grad-CAM, successful adversarials, strength 100 %.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

HOLDS, PARTLY, NOT, NO_EFFECT = "holds", "holds in part", "does not hold", "no effect"
UNDECIDED, NOT_RUN = "not decided", "not run here"
VERDICTS = (HOLDS, PARTLY, NOT, NO_EFFECT, UNDECIDED, NOT_RUN)

# Of cosine: an interval that lies wholly within it is "no effect", even where it lies above 0: a
# difference that small, however sure, is none that a map's reader could see.
MARGIN = 0.02
MARGINS = (0.01, 0.02, 0.05)  # also shown

RENKHOFF, TAN = "renkhoff2022", "tan2023"
KLAWIKOWSKA, CHAKRABORTY = "klawikowska2020", "chakraborty2022"


@dataclass(frozen=True)
class Claim:
    """One claim.

    id: letter of the paper and number.
    paper: whose claim; 'f' and 'b' in an id mark a question of ours beside it.
    says: the claim.
    where: section, figure or table of the paper, or 'ours'.
    printed: the number printed for it, if any.
    statistic: what is measured.
    holds_if: the threshold, set beforehand.
    """

    id: str
    paper: str
    says: str
    where: str
    printed: str
    statistic: str
    holds_if: str


CLAIMS: tuple[Claim, ...] = tuple(
    Claim(*row)
    for row in (
        ("A1", RENKHOFF, "An attack moves the maps further than the same amount of noise",
         "abstract, IV-C", "", "mean e by layer", "> 0 after Holm in every layer"),
        ("A1f", RENKHOFF, "... also where the class did not flip", "ours", "",
         "mean e by layer, images not flipped", "> 0 after Holm in every layer"),
        ("A2", RENKHOFF, "Similarity under attack has a lower mean and a greater variance",
         "IV-C, fig. 4", "", "mean e; ratio of variances, attack over noise",
         "> 0 and > 1 in every layer"),
        ("A3", RENKHOFF, "Layers 4-1 and 5-1 are the most vulnerable", "abstract, IV-C", "",
         "rank of e / (1 - c_u) among the layers",
         "both in the top 3 in 90 % of resamples"),
        ("A4", RENKHOFF, "Deeper layers deviate more", "IV-D", "",
         "Spearman of depth and (c_a - c_u) / (1 - c_u)", "< -0.5, interval below 0"),
        ("A5", RENKHOFF, "Strengths 0.5 and 1 give almost the same curve", "IV-D", "",
         "largest difference of mean c_a in a layer", "< 0.01"),
        ("A6", RENKHOFF, "Strengths 0.25, 2 and 4 give very similar curves", "IV-D", "",
         "largest pairwise difference of mean c_a in a layer", "< 0.03"),
        ("A7", RENKHOFF, "At strength 0.25 the deviation is still significant", "IV-D", "",
         "mean e at 0.25 by layer", "> 0 after Holm in 10 layers"),
        ("A8", RENKHOFF, "An attack deviates more than noise at every strength", "IV-D", "",
         "mean e over layers, by strength", "> 0 at all five"),
        ("A9", RENKHOFF, "At the lowest strength, any layer is compromised with about 40 % chance",
         "IV-E, fig. 6", "40 %", "compromised share at 0.25, mean over layers",
         "within 10 points of 40 %"),
        ("A10", RENKHOFF, "The chance reaches 80 % above strength 2 and below 0.25", "IV-E, fig. 6",
         "80 %", "compromised share at 0.25, 2 and 4, the least", ">= 70 % at each"),
        ("A11", RENKHOFF, "A few compromised layers are enough to mislead", "abstract, fig. 7", "",
         "share of images with 3 compromised layers or fewer, attack minus noise",
         "> 5 %, interval above 0"),
        ("A12", RENKHOFF, "Some adversarials compromise all layers, more so when strong", "IV-E",
         "", "share of images with all layers compromised; its slope in log2 strength",
         "> 1 % and > 0"),
        ("A13", RENKHOFF, "Coverage grows slightly faster under attack than under noise",
         "IV-B, fig. 2a", "0.456 / 0.442 at the end (public code)",
         "mean over seeds of coverage, attack minus noise", "> 0"),
        ("A14", RENKHOFF, "Strength has a slight effect on coverage, weaker grows slower",
         "IV-B, fig. 2b", "0.444 to 0.459 at the end (public code)",
         "Spearman of strength and final coverage; its range", "> 0.5 and < 0.05"),
        ("A15", RENKHOFF, "An adversarial is found for about half of the images", "IV-A", "48 %",
         "share of seeds with an adversarial", "within 10 points of 48 %, ImageNet only"),
        ("B1", TAN, "NoiseCAM detects more accurately than behaviour deviation",
         "abstract, fig. 8a", "", "difference of balanced accuracy", "> 0"),
        ("B1b", TAN, "... and than the cheap baselines", "ours", "",
         "difference of balanced accuracy to the best baseline", "> 0"),
        ("B2", TAN, "Behaviour deviation misses more and false-alarms less than NoiseCAM",
         "IV-C, fig. 8b", "", "differences of TPR and TNR", "both signs as claimed"),
        ("B3", TAN, "Its TPR falls slightly from 25 % to 400 %", "IV-C", "",
         "slope of TPR in log strength", "< 0"),
        ("B4", TAN, "NoiseCAM does not depend on the strength", "IV-C", "",
         "range of TPR over strengths", "< 5 points"),
        ("B5", TAN, "NoiseCAM is blank for noisy and clean images", "III-E, fig. 5", "",
         "share of maps without a cluster; their mass over that of adversarials",
         "> 90 % and < 10 %"),
        ("B6", TAN, "block5_conv1 is the most sensitive layer to both", "IV-B", "",
         "rank of normalised c_a and c_g among the layers", "lowest in both"),
        ("B7", TAN, "A blur of radius 1.5 breaks correct predictions, too", "II, fig. 1", "",
         "accuracy lost on clean and noisy images", "> 10 points"),
        ("B8", TAN, "A detector that does not know the attack survives one that knows it", "ours",
         "", "AUROC under the adaptive attack", "> 0.7"),
        ("C1", KLAWIKOWSKA, "FGSM and one-pixel make accuracy fall far", "table 1",
         "85.80 to 58.37 and 64.62 %", "attack success on images that were right", "> 30 %"),
        ("C2", KLAWIKOWSKA, "Retraining restores accuracy", "table 1", "84.15 and 86.09 %",
         "immune model on the extended set against the clean model on the clean set",
         "within 3 points"),
        ("C2b", KLAWIKOWSKA, "... also against the attack made anew", "ours", "",
         "attack success on the immune model minus half of that on the clean model", "at most 0"),
        ("C3", KLAWIKOWSKA, "FGSM practically reverses the relevance map", "4.1, fig. 3b", "",
         "correlation of LRP maps, clean and attacked", "mean < 0"),
        ("C4", KLAWIKOWSKA, "A one-pixel attack draws the relevance to its pixel", "4.1, fig. 3d",
         "", "relevance in the 5x5 around the pixel, over that before",
         "> 3 times in more than half"),
        ("C5", KLAWIKOWSKA, "The immune model's map looks as before the attack", "4.1, fig. 3e", "",
         "gain of correlation with the clean map over the attacked model's", "> 0"),
        ("C6", KLAWIKOWSKA, "Images near the other class in the UMAP are the attackable ones",
         "4.1, figs. 5, 6", "", "AUROC of that distance for success", "> 0.65"),
        ("C7", KLAWIKOWSKA, "Attacks leave different maps, so the attack can be identified", "4.1",
         "", "cross-validated accuracy on signatures, three classes", "> 60 %, chance 33 %"),
        ("D1", CHAKRABORTY, "MOD grows with eps in every model", "table 3",
         "mean 0.127 to 0.251; Inception falls at the last",
         "whether MOD rises with eps, resampled", "in all five models"),
        ("D2", CHAKRABORTY, "Wide networks lose more accuracy than deep ones", "tables 1, 2",
         "63 and 36 points against 2, 20 and 29 (table 1)",
         "accuracy lost at the largest eps, wide minus deep", "> 10 points"),
        ("D3", CHAKRABORTY, "At a similar shift deep networks lose less", "4.4", "",
         "accuracy lost at matched MOD, wide minus deep", "> 0"),
        ("D4", CHAKRABORTY, "VGG16 is the most stable", "4.4, fig. 4",
         "MOD 0.127, the others 0.262 to 0.296",
         "rank of MOD at the largest eps, and of VID", "lowest in both"),
        ("D5", CHAKRABORTY, "Attacks made on ResNet50 carry over to all", "4.2", "",
         "accuracy lost beyond matched noise, by other model", "> 5 points each"),
        ("D6", CHAKRABORTY, "The shift explains why models fail", "4.4, 5", "",
         "Spearman of MOD and accuracy lost; MOD of failed minus not failed images",
         "> 0.6 and > 0"),
        ("D7", CHAKRABORTY, "Preprocessing helps", "tables 1, 2", "",
         "paired difference of accuracy", "> 0 at eps >= 0.05"),
    )
)  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """What was found on a claim.

    value, low, high: the statistic and its interval, NaN where there is none.
    verdict: one of `VERDICTS`.
    detail: what stands behind it, in a few words.
    images: behind it, None where all are.
    """

    value: float
    low: float
    high: float
    verdict: str
    detail: str = ""
    images: int | None = None

    def wanting(self, images: int, *thresholds: float) -> "Finding":
        """Returns an undecided finding with the number of images that would decide it.

        The interval's width is taken to shrink with the root of their number, and the threshold is
        the one next to the value of those that the interval holds.
        """
        straddled = [t for t in thresholds if self.low <= t <= self.high and self.value != t]
        if self.verdict != UNDECIDED or not straddled:
            return self
        nearest = min(abs(self.value - threshold) for threshold in straddled)
        times = ((self.high - self.low) / 2 / nearest) ** 2
        wanted = math.ceil(round(images * times / 10, 6)) * 10
        return replace(self, detail=f"{self.detail}; about {wanted} test images would decide it")


# Columns of what protocols say of claims, a row each.
FOUND = ("protocol", "claim", "value", "low", "high", "verdict", "images", "detail")


# Claims that a verdict is written of and that are to be judged anew, each with the reason.
OF_RULES = (
    "judged by a quantile of held-out noise; the paper's rule is the median of a layer under noise"
)
OF_CLASSES = "each map explains its own top class, and no control has the classes swapped"
UNDER_REVIEW = dict.fromkeys(("A9", "A10", "A11", "A12"), OF_RULES) | dict.fromkeys(
    ("C3", "C5"), OF_CLASSES
)


def nothing(reason: str, verdict: str = UNDECIDED) -> Finding:
    """Returns a finding without a number."""
    return Finding(math.nan, math.nan, math.nan, verdict, reason)


def verdict_of_interval(low: float, high: float, *, above: float) -> str:
    """Returns the verdict on "the value is above `above`" from the value's interval."""
    if low > above:
        return HOLDS
    return NOT if high < above else UNDECIDED


def verdict_of_range(low: float, high: float, *, least: float, most: float) -> str:
    """Returns the verdict on "the value is within [least, most]" from the value's interval."""
    if least <= low and high <= most:
        return HOLDS
    return NOT if high < least or low > most else UNDECIDED


def verdict_of_parts(parts: list[str], *, wanted: int | None = None) -> str:
    """Returns the verdict on a claim that speaks of several layers or strengths.

    It holds where `wanted` of them (all, unless said) do, and in part where at least half do.
    Otherwise it does not hold where more than half speak against it, or has no effect where all
    of these are "no effect"; else it is not decided.
    """
    wanted = len(parts) if wanted is None else wanted
    holding = parts.count(HOLDS)
    against = parts.count(NOT) + parts.count(NO_EFFECT)
    if parts and holding >= wanted:
        return HOLDS
    if 2 * holding >= len(parts) > 0:
        return PARTLY
    if 2 * against > len(parts):
        return NO_EFFECT if parts.count(NOT) == 0 else NOT
    return UNDECIDED


def verdict_of_all(parts: list[str]) -> str:
    """Returns the verdict on a claim that asks for several things at once: the worst of theirs."""
    return max(parts, key=[HOLDS, PARTLY, UNDECIDED, NO_EFFECT, NOT].index)


def worst(found: Sequence[tuple[float, float, float]], parts: list[str], detail: str) -> Finding:
    """Returns the finding on a claim that asks for several things at once.

    Args:
        found: value and interval of each.
        parts: their verdicts.
        detail: what stands behind them.

    Returns:
        The worst of the verdicts, with the value and the interval that decided it.
    """
    verdict = verdict_of_all(parts)
    return Finding(*found[parts.index(verdict)], verdict, detail)


def margin(low: float, high: float) -> float:
    """Returns the smallest of `MARGINS` within which an interval lies wholly, NaN if none."""
    fits = [size for size in MARGINS if -size <= low and high <= size]
    return min(fits) if fits else float("nan")
