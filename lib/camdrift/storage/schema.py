"""Kinds of artefacts: frozen dataclasses, each field one file, and the names in their tables.

A `size` among facts is a side in px or, of what is not square, [height, width], as
`settings.section.sides` reads it.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

Places = slice | np.ndarray  # indices of some of a cell's images

# Variants of an image, as tables name them; controls have their own names.
CLEAN, ADVERSARIAL, NOISE, RAISED = "clean", "adversarial", "noise", "raised_noise"
BELOW, ABOVE = "below_boundary", "above_boundary"  # parts of the attack that do not flip, and do
SOFTMAX = "clean_softmax"  # the clean image, its map explaining the probability of its class
# Attacks on detectors alone.
NON_ADAPTIVE, ADAPTIVE, GRADIENT_FREE = ATTACKS = "non_adaptive", "adaptive", "gradient_free"
NOTHING, UNRELATED = "nothing", "unrelated"  # in scores only: pairs of clean maps
BASELINE, LARGER = "baseline", "fgsm_larger"  # the model before retraining; an attack on all models
# Target policies: the class that a map explains.
OWN, SEED, GIVEN = "own_top1", "seed_class", "given"
POLICIES = (GIVEN, OWN)  # of transferred attacks, in the order of their arrays
# Attacks on a target: computed on itself; on the network that its study names; noise of
# that one's size; and, followed by the name of a network, computed on that network.
OWN_ATTACK, TRANSFERRED, TRANSFERRED_NOISE, MADE_ON = "own", "transferred", "noise", "from "


def controlled(attack: str, control: str) -> str:
    """Returns the name of a control of an attack, or of noise of its size, as an attack."""
    return f"{attack}, {control}"


def as_8bit(attack: str) -> str:
    """Returns the name of an attack whose images are rounded to 256 levels, as an attack."""
    return f"{attack}, 8 bit"


def attack_of(name: str) -> str:
    """Returns the attack that a name is of, or is a control of, see `controlled`."""
    return name.partition(", ")[0]


def control_of(name: str) -> str:
    """Returns the control in a name of `controlled`, '' for the attack itself."""
    return name.partition(", ")[2]


@dataclass(frozen=True)
class ImageSet:
    """Images of one set.

    pixels: uint8 (n, height, width, c), RGB or, of one channel, grey. So are `c` channels below.
    index: n rows of `id, label, class_name, split, source, licence, sha256`.
    facts: `unreadable_files`, the number of files that could not be read; `split_by`, 'shares' or
        'folders'; `class_folders`, the names of the folders that number the classes, if any do.
    """

    pixels: np.ndarray
    index: pd.DataFrame
    facts: dict

    @property
    def tests(self) -> pd.DataFrame:
        """The rows of the test images, with `image`, their place in the set."""
        return self.index[self.index["split"] == "test"].reset_index(names="image")


@dataclass(frozen=True)
class Weights:
    """A trained or loaded network.

    state: the state dict.
    facts: `classes` (number of logits), `size` (of the input), `layers` (names and labels of the
        maps, in forward order), `test_accuracy`, `chance` (see `chance.level`).
    curve: `epoch, loss, validation_accuracy`, empty when nothing was trained.
    """

    state: dict
    facts: dict
    curve: pd.DataFrame


@dataclass(frozen=True)
class Attacked:
    """The effect of an attack on the n test images of a cell.

    perturbation: float32 (n, c, height, width), before clipping, pixels in [0, 1].
    last_step: the part of it that the last of several steps added; no rows if it is one step.
    images: n rows, `image` (its place among the set's images), `id`, `source`, `label`,
        `clean` (prediction), `adversarial`, `adversarial_8bit`, `unclipped` (predictions at
        strength 1), `success`, `success_8bit`, `l2`, `linf`, `rms`, `evaluations`,
        `probabilities`, `zero_gradient`.
    log: the attack's own record, empty for most attacks.
    """

    perturbation: np.ndarray
    last_step: np.ndarray
    images: pd.DataFrame
    log: pd.DataFrame

    def only(self, places: Places) -> "Attacked":
        """Returns the part for the images at rising `places`; the log stays whole."""
        images = self.images.iloc[places].reset_index(drop=True)
        last_step = self.last_step[places] if len(self.last_step) else self.last_step
        return Attacked(self.perturbation[places], last_step, images, self.log)


@dataclass(frozen=True)
class Noise:
    """The noise to compare each perturbation with.

    draws: float32 (n, draws, c, height, width), standard normal.
    controls: float32 (n, kinds, c, height, width), the perturbation rearranged, at strength 1.
    facts: `controls`, their names in that order.
    scales: a row for each (image, draw, strength, recipe): `scale`, the factor on N(mean, std) of
        the perturbation, and, after clipping and quantising, the measured `mean`, `std`, `l2`,
        `linf` of the attack (`attack_*`) and of the noise (`noise_*`).
    raised: a row an image, for the first draw, raised until the prediction flips: `scale`, `size`
        (its L2 norm over the attack's), `flipped`.
    boundary: a row an image, `below, above, flipped`, see `boundary.crossed`.
    """

    draws: np.ndarray
    controls: np.ndarray
    facts: dict
    scales: pd.DataFrame
    raised: pd.DataFrame
    boundary: pd.DataFrame

    def only(self, places: Places) -> "Noise":
        """Returns the noise of the images at rising `places`."""
        raised, boundary = (
            table.iloc[places].reset_index(drop=True) for table in (self.raised, self.boundary)
        )
        mine = self.scales["image"].isin(raised["image"])
        scales = self.scales[mine].reset_index(drop=True)
        arrays = self.draws[places], self.controls[places]
        return Noise(*arrays, self.facts, scales, raised, boundary)


@dataclass(frozen=True)
class Maps:
    """Class-activation maps of all layers for every variant of every image.

    values: float16 (maps, total): each layer's map divided by its maximum, flattened and joined.
    maxima: float32 (maps, layers): the maxima; 0 marks an empty map.
    rows: a row for each (method, image, variant, strength, draw, recipe, target): `map`, its row
        in `values` (shared wherever pixels and class are equal), `target_class`, `prediction`,
        `probability`. Methods after the first have central variants alone, see `variants`.
    layers: a row a layer: `name, label, height, width, start` (its first column in `values`).
    pictures: uint8 (examples, variants, height, width, c), of the images and variants below.
    examples: `image` and `variant` and `strength` of each picture, in the order of `pictures`.
    """

    values: np.ndarray
    maxima: np.ndarray
    rows: pd.DataFrame
    layers: pd.DataFrame
    pictures: np.ndarray
    examples: pd.DataFrame

    @property
    def methods(self) -> list[str]:
        """The methods; the first decides the verdicts."""
        return list(self.rows["method"].unique())

    def select(self, method: str | None = None) -> pd.DataFrame:
        """Returns the rows of a method, None for the first."""
        return self.rows[self.rows["method"] == (method or self.methods[0])]


@dataclass(frozen=True)
class Packed:
    """Part of a cell's `Maps`: `values`, `maxima` and `rows`, whose `map` counts from 0 here."""

    values: np.ndarray
    maxima: np.ndarray
    rows: pd.DataFrame


@dataclass(frozen=True)
class Covered:
    """The neurons that each variant of each image covers.

    bits: uint8 (rows, bytes): a bit a neuron, packed by `np.packbits`.
    rows: `image, variant, strength, draw`, one for each row of `bits`.
    facts: `neurons`, their number, and `classes`, that of the softmax's among them, the last ones.
    """

    bits: np.ndarray
    rows: pd.DataFrame
    facts: dict


@dataclass(frozen=True)
class Scores:
    """Drift of the maps.

    values: a row for each (reading, method, image, variant, strength, draw, target, layer, score):
        `value`, missing where the score is not defined. `reading` is `Protocol.reading`.
    """

    values: pd.DataFrame


@dataclass(frozen=True)
class Similarities:
    """Similarity of a cell's maps to the clean ones, by layer, as the study of detectors reads it.

    values: a row for each (reading, target, layer, variant, image), layers in forward order: the
        cosine, `value`, under the attack and the first draw of noise at strength 1, and of
        unrelated clean images.
    images: a row an image: `image, source, success`.
    """

    values: pd.DataFrame
    images: pd.DataFrame


@dataclass(frozen=True)
class Detected:
    """The detectors' features of a cell's images, each image by itself.

    features: a row for each (image, variant, strength, against): its features, see
        `evaluation.measuring`. Variants are clean, adversarial, noise and, at strength 1, the
        attacks on detectors: 'adaptive' and 'gradient_free', which know the detector `against`,
        with that detector's features alone, and 'non_adaptive', all within one eps; and, as
        '<attack>_noise', noise of the size of each of these. `surrogate` is the number that the
        adaptive attack lowers. `blurred` is the prediction after a blur, `rms` the root mean
        square of the change, in pixel values.
    images: a row an image: `image, split, source, label, clean, success`.
    maps: float16 (examples, variants, methods, h, w): normalised maps to show.
    pictures: uint8 (examples, variants, h, w, c).
    examples: `image, variant, prediction` of each picture, in the order of `pictures`.
    facts: `methods` of `maps`; `passes`: forward ones of the model, by detector; `classes`: pairs
        of the number and the name of each class; `size` of the images.
    layers: see `evaluation.sensitivity.measure`, with `behaviour`: whether that detector reads it.
    """

    features: pd.DataFrame
    images: pd.DataFrame
    layers: pd.DataFrame
    maps: np.ndarray
    pictures: np.ndarray
    examples: pd.DataFrame
    facts: dict


@dataclass(frozen=True)
class Seen:
    """Some of the rows of `Detected.features`, and seconds an image, by detector."""

    features: pd.DataFrame
    seconds: dict


@dataclass(frozen=True)
class Sensitivity:
    """The sensitivity of layers, and the training images that detectors compare an image with.

    layers: their sensitivity on calibration images, see `evaluation.sensitivity.measure`.
    activations: float32 (n, channels of all layers): pooled activations of training images, see
        `features.reference`; no rows where no detector compares images with these.
    labels: int64 (n,), of these images.
    facts: `channels`, their number in each layer.
    """

    layers: pd.DataFrame
    activations: np.ndarray
    labels: np.ndarray
    facts: dict


@dataclass(frozen=True)
class Retrained:
    """Models retrained on attacked images, and attacks on each of them.

    attacks: a row for each (model, attack, split, image), see klawikowska2020's experiment. Models
        are 'baseline' and the kinds of retrained ones; attacks 'fgsm', 'one_pixel', 'pgd' and
        'fgsm_larger'. The training split is attacked on the baseline model alone, by the first two
        attacks. Models retrained on images of 8 bit, 'fgsm_8bit' and 'one_pixel_8bit', meet their
        own attack alone.
    predictions: a row for each (model, on, image): `source, label, prediction` of the test images,
        on 'clean' (unchanged), and after 'fgsm' and 'one_pixel' on the baseline model; of models
        retrained on images of 8 bit also on these rounded, see `as_8bit`.
    controls: a row for each (model, attack, control, image) of the test split: `source, right`
        (the model on the clean image), `flipped` (the control changes its class).
    tests: a row a test image: `image` (its place in the set), `id, source, label, class_name`.
    changed: float32 (2, n, c, h, w): the test images after 'fgsm' and 'one_pixel' on the baseline
        model, in [0, 1].
    facts: `settings` of each attack; `added`, the number of images that each of 'fgsm' and
        'one_pixel' adds to the training set; `added_8bit`, of those that survive rounding to 256
        levels; `minimum_8bit`, the least of them that a model is retrained on, or None for no such
        model.
    """

    attacks: pd.DataFrame
    predictions: pd.DataFrame
    controls: pd.DataFrame
    tests: pd.DataFrame
    changed: np.ndarray
    facts: dict


@dataclass(frozen=True)
class Signatures:
    """LRP maps of a retraining's test images, and the baseline model's maps as signatures.

    maps: float16 (shown, n, h, w), each divided by its largest magnitude, in [-1, 1].
    images: a row for each (model, on) of `facts` and image: `source, label, prediction`,
        `correlation` with the baseline model's map of the clean image. On attacked images also
        `correlation_same_class`, where the map explains the class that the baseline model sees in
        the clean image; of the baseline model also `correlation_swapped`, of the clean image's map
        for the class that the attack leads to. After a one-pixel attack and its controls, `window`
        and `window_before`, the share of relevance around the most changed pixel in the image's
        own map and in the baseline model's map of the clean image; `window_same_class` and
        `window_swapped` likewise.
    points: a row for each clean image and each success on the baseline model: `image, source, on,
        label, after` (its prediction), `right` (the baseline model on the clean image),
        `success_fgsm, success_one_pixel`, `x, y` (UMAP), of clean images `distance, distance_plane`
        to the other class, and `identified`: whether a linear classifier of signatures names `on`.
        `x_last, y_last, distance_last, distance_plane_last, identified_last` are those of relevance
        at the last layer; `identified_same_class` is of maps of the clean image's class,
        `identified_sorted` of the values of maps without their places.
    rounded: a row for each (model, on, image): `source, label, prediction` of the attacked test
        images rounded to 256 levels, on 'fgsm' and 'one_pixel'.
    facts: `shown`, pairs of model and images, those of controls last; `numbers`: `negative
        relevance`, the share of it in the baseline model's maps of clean images; `chance of
        agreement`, `agreement in the whole space` and, where there are enough points for a plane,
        `trustworthiness, agreement`; the latter also `of the last layer`.
    pictures: uint8 (n, h, w, c), the clean test images.
    """

    maps: np.ndarray
    images: pd.DataFrame
    points: pd.DataFrame
    rounded: pd.DataFrame
    facts: dict
    pictures: np.ndarray


@dataclass(frozen=True)
class Signs:
    """The sign of change in each pixel value of a source's test images that raises its loss.

    Goodfellow et al. 2015, section 4, for every eps at once.

    sign: int8 (n, c, h, w), of -1, 0, 1.
    images: n rows, `image` (its place in the set), `id`.
    """

    sign: np.ndarray
    images: pd.DataFrame


@dataclass(frozen=True)
class Transferred:
    """The effect of attacks on a target, on the n test images of its set.

    images: n rows, `image` (its place in the set), `id, source, label, class_name`.
    outcomes: a row for each (image, attack, range, eps): `prediction`, `prediction_8bit` (after
        rounding to 256 levels; of the first range's 'own' and 'transferred', else missing), `psnr`
        in dB, missing where nothing changes. Attacks are 'own', 'transferred', 'noise' and, as
        'from <network>', those of each other source; at the largest eps also the controls of 'own'
        and 'transferred' and noise of the size of 'own', see `controlled`. eps 0 is the clean
        image, which stands under 'own' alone.
    variants: a row for each variant whose maps were compared with the clean image's: `attack, eps`.
    shifts: float32 (n, variants, policies, layers), NISSIM at each layer's own size, NaN where a
        map is empty or too small for a window. Policies are the label and the own top class.
    last: float32 (n, variants, policies, 2), NISSIM of the last layer at the input's size; first
        NaN where a map is empty, then with an empty map compared as a blank one.
    unrelated: float32 (n, policies, 2), as `last`, of the clean image's map and those of unrelated
        images: the mean over these.
    clean: float32 (n, policies, h, w), the clean image's maps of the last layer, each divided by
        its maximum; (0, policies, 1, 1) where no maps are compared.
    layers: a row a layer, as of `Maps`.
    values: float16 (examples, 1 + variants, policies, total), maps of the clean image and of each
        variant, all layers, each divided by its maximum, flattened and joined.
    pictures: uint8 (examples, 1 + variants, h, w, c).
    shown: `image` of each example, and its `class_name`.
    facts: `size` of the network's input; `convs` and the mean of their `channels`;
        `parameters`, their number; `zero_gradients`, by source the share of images at which the
        loss has no gradient at all.
    """

    images: pd.DataFrame
    outcomes: pd.DataFrame
    variants: pd.DataFrame
    shifts: np.ndarray
    last: np.ndarray
    unrelated: np.ndarray
    clean: np.ndarray
    layers: pd.DataFrame
    values: np.ndarray
    pictures: np.ndarray
    shown: pd.DataFrame
    facts: dict
