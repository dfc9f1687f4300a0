import math

import numpy as np
import pytest
import torch
from scipy.optimize import differential_evolution

from camdrift.attacks import one_pixel
from camdrift.models.incremental import Incremental, painted
from camdrift.models.model import Model
from camdrift.perturbations import perturbation
from camdrift.settings import SettingsError
from conftest import as_model, small_network

SETTINGS = {
    "pixels": 1, "population": 12, "generations": 6, "mutation": [0.5, 1.0],
    "recombination": 1.0, "bounds": [0.0, 1.0], "success": "best", "target": None,
}  # fmt: skip


def generators(count: int, start: int = 0) -> list[np.random.Generator]:
    return [np.random.default_rng(7 + i) for i in range(start, start + count)]


@pytest.fixture
def model(pixels) -> Model:
    """Classes nearly tie on the first image, so that one pixel can change a prediction."""
    network = small_network()
    with torch.no_grad():
        network[-1].bias -= as_model(network)(pixels[:1])[0]
        network[-1].bias[0] += 0.002
    return as_model(network)


def attacked(model, pixels, labels=None, start=0, /, **changed):
    labels = model(pixels).argmax(1) if labels is None else labels
    settings = SETTINGS | changed
    return one_pixel.perturb(
        model, pixels, labels, generators=generators(len(pixels), start), **settings
    )


def reached(attack, count=10) -> torch.Tensor:
    """Whether the search of each image says that it reached its goal."""
    said = {row["image"]: row["reached"] for row in attack.log}
    return torch.tensor([said.get(image, False) for image in range(count)])


def slow_image(image, genes, bounds):
    """An individual, gene by gene, as the public code paints it: image[x, y] = colour."""
    changed = image.clone()
    for row, column, *colour in genes.reshape(-1, 2 + len(image)):
        x, y = int(row * image.shape[1]), int(column * image.shape[2])
        for channel in range(len(image)):
            low, high = bounds
            changed[channel, x, y] = low + colour[channel] * (high - low)
    return changed


def slow_search(model, image, aim, generator, settings):
    """Differential evolution in loops, by Storn & Price's DE/best/1/bin; the draws in our order."""
    n, genes = settings["population"], (2 + len(image)) * settings["pixels"]
    goal = settings["target"] is not None

    def energy(individual):
        with torch.no_grad():
            logits = model(slow_image(image, individual, settings["bounds"])[None])[0]
        chance = float(logits.double().softmax(0)[aim])
        return (-chance if goal else chance), int(logits.argmax())

    jitter = generator.random((n, genes))
    cube = np.empty((n, genes))
    for i in range(n):
        for j in range(genes):
            cube[i, j] = (i + jitter[i, j]) / n

    def best_member(known):
        hits = [i for i in range(n) if (known[i][1] == aim) == goal]
        among = hits if hits and settings["success"] == "any" else range(n)
        return min(among, key=lambda i: known[i][0])

    population = list(generator.permuted(cube, axis=0))
    known = [energy(member) for member in population]
    evaluations = n
    for _ in range(settings["generations"]):
        best = best_member(known)
        if (known[best][1] == aim) == goal:
            break
        weight = generator.uniform(*settings["mutation"])
        first, second = generator.integers(1, n, n), generator.integers(1, n - 1, n)
        chances, certain = generator.random((n, genes)), generator.integers(0, genes, n)
        trials = []
        for i in range(n):
            others = [(i + k) % n for k in range(1, n)]
            one = others.pop(first[i] - 1)
            other = others[second[i] - 1]
            assert len({i, one, other}) == 3
            trial = population[i].copy()
            for j in range(genes):
                if chances[i, j] < settings["recombination"] or j == certain[i]:
                    difference = population[one][j] - population[other][j]
                    trial[j] = population[best][j] + weight * difference
            trials.append(trial)
        for trial in trials:
            for j in range(genes):
                if not 0 <= trial[j] <= 1:
                    trial[j] = generator.random()
        for i, (trial, score) in enumerate([(trial, energy(trial)) for trial in trials]):
            hit = settings["success"] == "any" and (score[1] == aim) == goal
            if score[0] < known[i][0] or hit:
                population[i], known[i] = trial, score
        evaluations += n
    best = best_member(known)
    success = (known[best][1] == aim) == goal
    return slow_image(image, population[best], settings["bounds"]) - image, evaluations, success


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"recombination": 0.6},
        {"pixels": 3, "generations": 3},
        {"target": 2},
        {"success": "any"},
        {"success": "any", "target": 2},
        {"bounds": [0.0, 255.0]},
        {"generations": 0},
    ],
)
def test_twin(model, pixels, changed):
    labels = model(pixels).argmax(1)
    attack = attacked(model, pixels, **changed)
    settings = SETTINGS | changed
    target, count = settings["target"], 0
    for i in range(3):
        aim = int(labels[i]) if target is None else target
        if target == labels[i]:
            continue
        expected = slow_search(model, pixels[i], aim, generators(1, i)[0], settings)
        torch.testing.assert_close(attack.pixels[i], expected[0])
        assert int(attack.evaluations[i]) == expected[1]
        assert bool(reached(attack)[i]) == expected[2]
        count += 1
    assert count


def test_as_good_as_scipys(pixels):
    """On a model that no pixel fools, so that no search stops early."""
    model = as_model(small_network())
    label = int(model(pixels[:1]).argmax())

    def energy(genes):
        with torch.no_grad():
            changed = torch.stack([slow_image(pixels[0], each, (0, 1)) for each in genes.T])
            return model(changed).double().softmax(1)[:, label].numpy()

    budget = {"maxiter": 10, "popsize": 4, "recombination": 1, "mutation": (0.5, 1)}
    theirs, ours = [], []
    for seed in range(5):
        optimum = differential_evolution(
            energy, [(0, 1 - 1e-9)] * 5, **budget, init="latinhypercube", vectorized=True,
            updating="deferred", polish=False, tol=0, atol=-1, rng=seed,
        )  # fmt: skip
        log = attacked(model, pixels[:1], None, seed, population=20, generations=10).log
        curve = [row["energy"] for row in log]
        assert len(curve) == 11
        assert curve == sorted(curve, reverse=True)
        theirs.append(optimum.fun)
        ours.append(curve[-1])
    clean = float(model(pixels[:1]).double().softmax(1)[0, label])
    assert np.mean(ours) < clean
    assert clean - np.mean(ours) == pytest.approx(clean - np.mean(theirs), rel=0.25)


def test_alone_and_in_company(model, pixels):
    for changed in ({}, {"pixels": 3}, {"target": 1, "generations": 2}):
        whole = attacked(model, pixels, **changed)
        for i in range(10):
            alone = attacked(model, pixels[i : i + 1], None, i, **changed)
            assert torch.equal(whole.pixels[i], alone.pixels[0])
            assert whole.evaluations[i] == alone.evaluations[0]
            assert whole.successes is None or whole.successes[i] == alone.successes[0]
            logged = [row | {"image": 0} for row in whole.log if row["image"] == i]
            assert logged == alone.log


def test_finished_images_are_dropped_and_every_query_is_counted(model, pixels, monkeypatch):
    queries, owners = 0, []
    logits = Incremental.logits

    def counted(self, images, places, values):
        nonlocal queries
        queries += len(images)
        owners.append(set(images.tolist()))
        return logits(self, images, places, values)

    monkeypatch.setattr(Incremental, "logits", counted)
    attack = attacked(model, pixels[:4])
    assert queries == int(attack.evaluations.sum())
    assert reached(attack, 4).any() and not reached(attack, 4).all()
    assert all(later <= earlier for earlier, later in zip(owners, owners[1:], strict=False))
    assert len(owners[-1]) < len(owners[0])
    for i in range(4):
        rows = [row for row in attack.log if row["image"] == i]
        assert [row["generation"] for row in rows] == list(range(len(rows)))
        assert [row["evaluations"] for row in rows] == [12 * (k + 1) for k in range(len(rows))]
        assert int(attack.evaluations[i]) == 12 * len(rows)
        assert len(rows) == 7 or reached(attack, 4)[i]
        ended = [int(row["prediction"]) != int(model(pixels)[i].argmax()) for row in rows]
        assert ended == [row["reached"] for row in rows]
        assert not any(ended[:-1])


def test_what_was_reached_changes_the_models_own_prediction(model, pixels):
    labels = model(pixels).argmax(1)
    attack = attacked(model, pixels, generations=20)
    assert reached(attack).any()
    assert torch.equal(model(pixels + attack.pixels).argmax(1) != labels, reached(attack))
    table = perturbation.measure(model, pixels, attack)
    assert table["success"].tolist() == reached(attack).tolist()


def test_what_is_reached_beyond_white_may_be_lost_by_clipping(model, pixels):
    """The caller, who clips, says what success is; `unclipped` keeps what the search saw."""
    attack = attacked(model, pixels, bounds=[0.0, 255.0], population=30)
    table = perturbation.measure(model, pixels, attack)
    assert (table["unclipped"] != table["clean"]).tolist() == reached(attack).tolist()
    assert table["success"].tolist() == (table["adversarial"] != table["clean"]).tolist()
    assert table["success"].sum() < reached(attack).sum()


@pytest.mark.parametrize("count", [1, 3, 5])
@pytest.mark.parametrize("bounds", [[0.0, 1.0], [0.2, 0.4], [0.0, 255.0]])
def test_so_many_pixels_change_within_bounds(model, pixels, count, bounds):
    attack = attacked(model, pixels, pixels=count, bounds=bounds, generations=2)
    touched = (attack.pixels != 0).any(1).flatten(1).sum(1)
    assert (touched <= count).all() and (touched >= 1).any()
    values = (pixels + attack.pixels)[attack.pixels != 0]
    assert values.min() >= bounds[0] - 1e-6
    assert values.max() <= bounds[1] + 1e-4
    if bounds[1] > 1:
        assert values.max() > 2  # the artefact: brighter than white


def test_a_target_is_reached(model, pixels):
    labels = model(pixels).argmax(1)
    count = 0
    for target in range(4):
        attack = attacked(model, pixels, target=target, population=30, generations=10)
        predictions = model(pixels + attack.pixels).argmax(1)
        start = labels == target
        assert torch.equal(attack.successes, (predictions == target) & ~start)
        assert torch.equal(attack.successes, reached(attack))
        assert not attack.evaluations[start].any() and not attack.pixels[start].any()
        assert (
            perturbation.measure(model, pixels, attack)["success"].tolist()
            == attack.successes.tolist()
        )
        bright = attacked(model, pixels, target=target, bounds=[0.0, 20.0])
        clipped = model((pixels + bright.pixels).clamp(0, 1)).argmax(1)
        assert torch.equal(bright.successes, (clipped == target) & ~start)
        count += int(attack.successes.sum())
    assert count
    with pytest.raises(SettingsError, match="wanted a class below 4, got 4"):
        attacked(model, pixels, target=4)


def test_a_misclassified_image_is_left_alone(model, pixels):
    labels = model(pixels).argmax(1)
    wrong = torch.arange(10) % 3 == 0
    attack = attacked(model, pixels, torch.where(wrong, (labels + 1) % 4, labels))
    assert not attack.pixels[wrong].any()
    assert not attack.evaluations[wrong].any()
    assert not reached(attack)[wrong].any()
    assert not perturbation.measure(model, pixels, attack)["success"][wrong.numpy()].any()
    assert {row["image"] for row in attack.log} == set((~wrong).nonzero().flatten().tolist())
    plain = attacked(model, pixels, labels)
    assert torch.equal(attack.pixels[~wrong], plain.pixels[~wrong])
    nothing = attacked(model, pixels, (labels + 1) % 4)
    assert not nothing.evaluations.any() and not nothing.log


def test_the_first_generation_is_a_latin_hypercube():
    search = one_pixel._search(0, False, False, np.random.default_rng(0), 20, 5, 0)
    for gene in search.population.T:
        assert sorted(math.floor(value * 20) for value in gene) == list(range(20))


def test_an_image_that_no_pixel_changes(pixels):
    attack = attacked(as_model(small_network()), pixels, population=5, generations=1)
    assert not reached(attack).any()
    assert attack.evaluations.tolist() == [10] * 10


def test_the_last_pixel_painted_on_a_place_stays():
    pixels = torch.zeros(1, 3, 4, 4)
    places = torch.tensor([[[1, 2], [3, 0], [1, 2]]])
    values = torch.tensor([[[0.1] * 3, [0.2] * 3, [0.3] * 3]])
    changed = painted(pixels, places, values)
    assert not pixels.any()
    assert changed[0, :, 1, 2].tolist() == pytest.approx([0.3] * 3)
    assert changed[0, :, 3, 0].tolist() == pytest.approx([0.2] * 3)
    assert int((changed != 0).sum()) == 6
