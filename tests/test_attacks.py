import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional as F

from camdrift import attacks
from camdrift.attacks import dlfuzz, fgsm, pgd
from camdrift.models import coverage, gradients
from camdrift.perturbations import perturbation
from camdrift.settings import params
from conftest import ROOT, as_model, small_network

# A library's attack is that library's, see test_library.py.
NAMES = [name for name in attacks.names() if name != "library"]
COMMON = params.load(ROOT / "params.yaml").attacks
# What small images take; an attack that is not here has its usual settings.
SETTINGS = {
    "none": {},
    "fgsm": {"eps": 0.03, "gains": 1, "target": None},
    "pgd": {"eps": 0.03, "step": 0.01, "steps": 5, "random_start": True, "early_stop": True},
    "dlfuzz": {
        "rivals": 2, "rival_weight": 0.5, "neurons": 6, "neuron_weight": 0.5,
        "strategies": [0, 1, 2, 3], "threshold": 0.25, "step": 2.0, "iterations": 1,
        "max_steps": 6, "norm_limit": 0.1, "min_gain": None, "tables": "per_seed",
        "differs_from": "clean", "mutant": "last",
    },
    "apgd": {"eps": 0.03, "steps": 8, "restarts": 2},
    "map_moving": {"eps": 0.03, "step": 0.2, "steps": 5},
    "map_keeping": {"eps": 0.03, "step": 0.2, "steps": 5, "bisections": 2},
    "one_pixel": {
        "pixels": 1, "population": 10, "generations": 4, "mutation": [0.5, 1.0],
        "recombination": 1.0, "bounds": [0.0, 1.0], "success": "best", "target": None,
    },
}  # fmt: skip


def generators(count: int, start: int = 0) -> list[np.random.Generator]:
    return [np.random.default_rng(7 + i) for i in range(start, start + count)]


def attacked(name, model, pixels, labels=None, start=0, **changed):
    labels = model(pixels).argmax(1) if labels is None else labels
    perturb = attacks.perturbing(name)
    settings = attacks.resolved(name, COMMON, SETTINGS.get(name, {}) | changed)
    return perturb(model, pixels, labels, generators=generators(len(pixels), start), **settings)


@pytest.mark.parametrize("name", NAMES)
def test_contract_of_every_attack(name, model, pixels):
    before = {key: value.clone() for key, value in model.state_dict().items()}
    untouched = pixels.clone()
    attack = attacked(name, model, pixels)
    assert attack.pixels.shape == pixels.shape
    assert torch.isfinite(attack.pixels).all()
    assert not attack.pixels.requires_grad
    assert attack.evaluations.shape == (len(pixels),)
    assert torch.equal(pixels, untouched)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert torch.equal(attack.pixels, attacked(name, model, pixels).pixels)


@pytest.mark.parametrize("name", NAMES)
def test_an_image_is_attacked_alike_in_any_company(name, model, pixels):
    whole = attacked(name, model, pixels)
    for part in (slice(0, 3), slice(3, 10)):
        alone = attacked(name, model, pixels[part], start=part.start)
        assert torch.equal(whole.pixels[part], alone.pixels)
        assert torch.equal(whole.evaluations[part], alone.evaluations)


def test_shards_change_nothing(model, pixels):
    labels = model(pixels).argmax(1)
    attacks = [
        perturbation.run(
            dlfuzz.perturb, model, model, pixels, labels, generators=generators(10), shard=shard,
            settings=SETTINGS["dlfuzz"],
        )[0]
        for shard in (3, 10)
    ]  # fmt: skip
    assert torch.equal(attacks[0].pixels, attacks[1].pixels)
    assert attacks[0].log == attacks[1].log


@pytest.mark.parametrize("name", ["fgsm", "one_pixel", "dlfuzz"])
def test_images_that_are_not_attacked_stay_as_they_are(name, model, pixels):
    labels, only = model(pixels).argmax(1), torch.arange(10) % 3 > 0
    how = {"generators": generators(10), "settings": SETTINGS[name]}
    perturb = attacks.perturbing(name)
    whole, effect = perturbation.run(perturb, model, model, pixels, labels, **how)
    how["generators"] = generators(10)
    part, of_part = perturbation.run(perturb, model, model, pixels, labels, **how, only=only)
    assert not part.pixels[~only].any()
    assert not part.evaluations[~only].any()
    assert not of_part["success"][~only.numpy()].any()
    assert torch.equal(part.pixels[only], whole.pixels[only])
    assert part.log == [row for row in whole.log if only[row["image"]]]
    pd.testing.assert_frame_equal(of_part[only.numpy()], effect[only.numpy()])
    if whole.last_step is not None:
        assert torch.equal(part.last_step[only], whole.last_step[only])
    none, _ = perturbation.run(perturb, model, model, pixels, labels, **how, only=only & False)
    assert not none.pixels.any()


def slow_gradient(model, image, label):
    image = image.clone()[None].requires_grad_()
    F.cross_entropy(model(image), label[None]).backward()
    return image.grad[0]


def test_gradient_is_each_images_own(model, pixels):
    labels = torch.arange(10) % 4
    gradient, predictions = gradients.cross_entropy(model, pixels, labels)
    assert torch.equal(predictions, model(pixels).argmax(1))
    for i in range(10):
        torch.testing.assert_close(gradient[i], slow_gradient(model, pixels[i], labels[i]))


def test_fgsm_twin(model, pixels):
    labels = torch.arange(10) % 4
    changes = attacked("fgsm", model, pixels, labels).pixels
    for i in range(10):
        sign = slow_gradient(model, pixels[i], labels[i]).sign()
        assert torch.equal(changes[i], 0.03 * sign)


def test_pgd_twin(model, pixels):
    labels = model(pixels).argmax(1)
    changes = attacked("pgd", model, pixels, random_start=False, early_stop=False).pixels
    for i in range(10):
        x = pixels[i].clone()
        for _ in range(5):
            x = x + 0.01 * slow_gradient(model, x, labels[i]).sign()
            x = torch.minimum(torch.maximum(x, pixels[i] - 0.03), pixels[i] + 0.03).clamp(0, 1)
        torch.testing.assert_close((pixels[i] + changes[i]).clamp(0, 1), x)


def test_pgd_keeps_a_random_start_that_flips(model, pixels):
    labels = model(pixels).argmax(1)
    labels[::2] = (labels[::2] + 1) % 4  # these are not their labels from the start
    how = {"eps": 0.03, "step": 0.01, "steps": 3, "random_start": True, "early_stop": True}
    attack = pgd.perturb(model, pixels, labels, generators=generators(10), **how)
    for i, generator in enumerate(generators(10)):
        start = torch.from_numpy(generator.uniform(-0.03, 0.03, (3, 12, 12))).float()
        assert torch.equal(attack.pixels[i], start) == (attack.evaluations[i] == 1)
    assert (attack.evaluations[::2] == 1).all()
    assert (attack.evaluations[1::2] > 1).any()


def test_pgd_stops_each_image_at_its_first_flip(model, pixels):
    common = {"eps": 0.5, "step": 0.05, "steps": 20, "random_start": False}
    late = attacked("pgd", model, pixels, **common, early_stop=False)
    soon = attacked("pgd", model, pixels, **common, early_stop=True)
    labels = model(pixels).argmax(1)
    flipped = 0
    for i in range(10):
        x, looks = pixels[i].clone(), 0
        while looks < 20:
            looks += 1
            if model(x[None]).argmax() != labels[i]:
                flipped += 1
                break
            x = x + 0.05 * slow_gradient(model, x, labels[i]).sign()
            x = torch.minimum(torch.maximum(x, pixels[i] - 0.5), pixels[i] + 0.5).clamp(0, 1)
        assert int(soon.evaluations[i]) == looks
        torch.testing.assert_close((pixels[i] + soon.pixels[i]).clamp(0, 1), x)
    assert flipped > 0
    assert late.evaluations.tolist() == [20] * 10


def test_one_step_of_pgd_is_fgsm(model, pixels):
    labels = model(pixels).argmax(1)
    one = pgd.perturb(model, pixels, labels, generators=generators(10), eps=0.03, step=0.03,
                      steps=1, random_start=False, early_stop=False)  # fmt: skip
    fast = fgsm.perturb(model, pixels, labels, generators=generators(10), eps=0.03, gains=1,
                        target=None)  # fmt: skip
    torch.testing.assert_close(
        (pixels + one.pixels).clamp(0, 1), (pixels + fast.pixels).clamp(0, 1)
    )


def slow_dlfuzz(model, image, generator, *, steps, settings):
    """renkhoff2022's loop for one image, with separate passes, strategy 1 only."""
    table = np.zeros(len(coverage.spatial(model)), dtype=int)
    x, mutants = image.clone(), []

    def look(x):
        with torch.no_grad():
            logits, tensors = model.excitations(x[None])
        return logits[0], (coverage.levels(logits, tensors)[0] > settings["threshold"]).numpy()

    logits, covered = look(x)
    for _ in range(steps):
        table += covered
        order = logits.argsort(descending=True)
        weights = (table.max() - table).astype(float)
        weights = weights if weights.any() else np.ones(len(table))
        count = min(settings["neurons"], np.count_nonzero(weights))
        picks = generator.choice(len(table), count, replace=False, p=weights / weights.sum())
        x = x.detach().requires_grad_()
        out, tensors = model.excitations(x[None])
        p = out.softmax(1)[0]
        rivals = sum(p[order[k]] for k in range(1, settings["rivals"] + 1))
        objective = settings["rival_weight"] * rivals - p[order[0]]
        means = coverage.means(out, tensors)[0]
        for pick in picks:
            objective = objective + settings["neuron_weight"] * means[pick]
        (gradient,) = torch.autograd.grad(objective, x)
        gradient = gradient / 255
        x = x.detach() + settings["step"] / 255 * gradient / (
            gradient.square().mean().sqrt() + 1e-5
        )
        mutants.append(x)
        logits, covered = look(x)
        table += covered
        if (x - image).norm() / (image - model.mean[0]).norm() >= settings["norm_limit"]:
            break
    clean = model(image[None]).argmax()
    adversarials = [m for m in mutants if model(m[None]).argmax() != clean]
    if adversarials and settings["mutant"] == "first":
        return adversarials[0] - image
    return (adversarials or mutants)[-1] - image


@pytest.mark.parametrize("mutant", ["first", "last"])
@pytest.mark.parametrize("norm_limit", [0.02, 0.08])
def test_dlfuzz_twin(pixels, norm_limit, mutant):
    model = as_model(small_network(), micro_batch=1)
    changed = {"strategies": [1], "norm_limit": norm_limit, "mutant": mutant}
    changes = attacked("dlfuzz", model, pixels, **changed).pixels
    settings = SETTINGS["dlfuzz"] | changed
    for i in range(10):
        expected = slow_dlfuzz(model, pixels[i], generators(1, i)[0], steps=6, settings=settings)
        torch.testing.assert_close(changes[i], expected, rtol=1e-4, atol=1e-6)


def test_fgsm_by_gain_looks_at_one_gradient_and_stops_at_the_first_flip(model, pixels, monkeypatch):
    calls = []
    of = gradients.cross_entropy
    monkeypatch.setattr(gradients, "cross_entropy", lambda *a: calls.append(1) or of(*a))
    network = small_network()
    with torch.no_grad():
        network[-1].bias -= model(pixels[:1])[0]  # classes nearly tie, so that a small gain flips
    model = as_model(network)
    labels = model(pixels).argmax(1)
    attack = attacked("fgsm", model, pixels, eps=0.5, gains=20)
    assert len(calls) == 1
    sign = of(model, pixels, labels)[0].sign()
    flipped = 0
    for i in range(10):
        tried = [0.5 * k / 20 for k in range(1, 21)]
        changed = [(pixels[i : i + 1] + gain * sign[i]).clamp(0, 1) for gain in tried]
        flips = [bool(model(image).argmax(1) != labels[i]) for image in changed]
        first = flips.index(True) if any(flips) else 19
        torch.testing.assert_close(attack.pixels[i], tried[first] * sign[i])
        assert int(attack.evaluations[i]) == 1 + first + 1
        flipped += any(flips)
        log = attack.log[i]
        assert log["before"] == labels[i]
        assert log["after"] == model(changed[first]).argmax(1)
        assert log["gain"] == pytest.approx(tried[first]) if any(flips) else np.isnan(log["gain"])
    assert flipped


def test_targeted_fgsm_stops_where_its_class_is_reached(model, pixels):
    network = small_network()
    with torch.no_grad():
        network[-1].bias -= model(pixels[:1])[0]
    model = as_model(network)
    labels = model(pixels).argmax(1)
    target = int(labels.mode().values)
    attack = attacked("fgsm", model, pixels, labels, eps=0.5, gains=20, target=target)
    after = model((pixels + attack.pixels).clamp(0, 1)).argmax(1)
    assert torch.equal(attack.successes, after == target)
    there = labels == target
    assert (attack.pixels[there] == 0).all()
    assert (attack.evaluations[there] == 1).all()
    sign = gradients.cross_entropy(model, pixels, torch.full_like(labels, target))[0].sign()
    for i in (~there).nonzero().flatten().tolist():
        gain = attack.log[i]["gain"] if attack.successes[i] else 0.5
        torch.testing.assert_close(attack.pixels[i], -gain * sign[i])


def test_the_last_step_of_dlfuzz_is_what_the_last_mutant_added(model, pixels):
    long = attacked("dlfuzz", model, pixels, norm_limit=1e9, max_steps=4)
    short = attacked("dlfuzz", model, pixels, norm_limit=1e9, max_steps=3)
    assert long.last_step is not None
    size = long.last_step.mul(255).square().mean((1, 2, 3)).sqrt()
    assert (size <= 2.0 + 1e-4).all()
    moved = 0
    for i in range(10):
        if torch.equal(long.pixels[i], short.pixels[i]):
            continue  # its last adversarial mutant came earlier
        moved += 1
        rest = long.pixels[i] - long.last_step[i]
        log = {row["step"]: row for row in long.log if row["image"] == i}
        if not any(row["adversarial"] for row in log.values()):
            torch.testing.assert_close(rest, short.pixels[i], atol=1e-6, rtol=1e-4)
    assert moved
    assert attacked("fgsm", model, pixels).last_step is None


@pytest.mark.parametrize(
    ("place", "neurons"), [(0, 149), (1, 75), (19, 8), (49, 3), (99, 2), (147, 2), (148, 1)]
)
def test_the_published_gain_in_neurons_of_vgg16(place, neurons):
    gain = dlfuzz.required_gain(0.01, place)
    assert (neurons - 1) / 14_888 <= gain < neurons / 14_888


def test_a_step_of_dlfuzz_has_the_published_size(model, pixels):
    attack = attacked("dlfuzz", model, pixels, max_steps=1, step=0.5)
    grey = attack.pixels.mul(255).square().mean((1, 2, 3)).sqrt()
    # The published 1e-5 in the denominator shortens the step of a small gradient.
    assert (grey <= 0.5).all()
    assert (grey > 0.3).all()


def test_the_gain_asked_for_falls_with_the_seeds_place(model, pixels):
    """min_gain / (i + 1): each seed goes on exactly while its logged gain exceeds its share."""
    least = 0.2
    log = attacked(
        "dlfuzz", model, pixels, tables="sequential", norm_limit=1e9, min_gain=least, threshold=0.4
    ).log
    ended_by_gain = went_on = 0
    for row, following in zip(log, [*log[1:], {"image": -1}], strict=True):
        if row["step"] in (0, 6):
            continue
        goes_on = following["image"] == row["image"]
        assert goes_on == (row["gain"] > least / (row["image"] + 1))
        went_on, ended_by_gain = went_on + goes_on, ended_by_gain + (not goes_on)
    assert ended_by_gain


def test_the_published_rule_counts_what_differs_from_the_parent(model, pixels):
    common = {"step": 12.0, "norm_limit": 1e9}
    parent = attacked("dlfuzz", model, pixels, differs_from="parent", **common)
    assert attacked("dlfuzz", model, pixels, **common).successes is None
    marked = {row["image"] for row in parent.log if row["adversarial"]}
    assert parent.successes.nonzero().flatten().tolist() == sorted(marked)
    table = perturbation.measure(model, pixels, parent)
    assert table["success"].tolist() == parent.successes.tolist()


def test_the_first_mutant_is_the_first_that_the_log_calls_adversarial(model, pixels):
    common = {"step": 60.0, "norm_limit": 1e9}
    first = attacked("dlfuzz", model, pixels, mutant="first", **common)
    last = attacked("dlfuzz", model, pixels, mutant="last", **common)
    assert first.log == last.log
    rows = pd.DataFrame(first.log).query("adversarial")
    flips = rows.groupby("image")["step"].agg(["min", "max"])
    longer = flips.index[flips["min"] < flips["max"]]
    assert len(longer)
    for image in longer:
        sizes = [attack.pixels[image].norm() for attack in (first, last)]
        assert sizes[0] < sizes[1]
    for image in set(range(len(pixels))) - set(longer):
        torch.testing.assert_close(first.pixels[image], last.pixels[image])


def test_the_gate_asks_for_gain_and_norm(model, pixels):
    def steps(**changed) -> torch.Tensor:
        return attacked("dlfuzz", model, pixels, **changed).evaluations - 1

    assert (steps(norm_limit=1e9) == 6).all()
    assert (steps(norm_limit=1e-9) == 1).all()
    assert (steps(norm_limit=1e9, min_gain=1.0) == 1).all()
    assert (steps(norm_limit=1e-9, iterations=3) == 3).all()


def test_sequential_tables_are_shared_in_order(model, pixels):
    log = attacked("dlfuzz", model, pixels, tables="sequential").log
    curve = [row["coverage"] for row in log]
    assert [row["image"] for row in log] == sorted(row["image"] for row in log)
    assert curve == sorted(curve)
    alone = attacked("dlfuzz", model, pixels[:1], tables="sequential").log
    assert log[: len(alone)] == alone


def test_what_is_measured_is_what_clipping_leaves():
    # The model tells whether the mean is above one half.
    class Bright(torch.nn.Module):
        def forward(self, x):
            return torch.stack([x.new_full((len(x),), 0.5), x.mean((1, 2, 3))], dim=1)

    pixels = torch.full((2, 3, 4, 4), 0.4)
    change = torch.stack([torch.full((3, 4, 4), 0.2), torch.full((3, 4, 4), 0.1001)])
    change[0, 0] = 5.0
    attack = perturbation.Perturbation(change, torch.tensor([3, 4]))
    table = perturbation.measure(Bright(), pixels, attack)
    assert table["clean"].tolist() == [0, 0]
    assert table["success"].tolist() == [True, True]
    assert table["success_8bit"].tolist() == [True, True]
    assert table["linf"].tolist() == pytest.approx([0.6, 0.1001])
    assert table["l2"][0] == pytest.approx((16 * 0.36 + 32 * 0.04) ** 0.5)
    assert table["rms"][1] == pytest.approx(0.1001)
    assert table["evaluations"].tolist() == [3, 4]


def test_rounding_to_8_bit_can_undo_a_success():
    class Above(torch.nn.Module):
        def forward(self, x):
            return torch.stack([x.new_zeros(len(x)), x.mean((1, 2, 3)) - 100.2 / 255], dim=1)

    pixels = torch.full((1, 3, 4, 4), 100 / 255)
    attack = perturbation.Perturbation(torch.full((1, 3, 4, 4), 0.3 / 255), torch.tensor([1]))
    table = perturbation.measure(Above(), pixels, attack)
    assert table[["success", "success_8bit"]].values.tolist() == [[True, False]]
