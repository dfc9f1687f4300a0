"""Attacks of other libraries, in cells: equal to the libraries' own, and checked as any attack."""

import pytest
import torch

from camdrift.attacks import library
from conftest import as_model, small_network
from test_attacks import generators

CASES = {
    "torchattacks:CW": {"c": 1, "steps": 20, "lr": 0.01},
    "torchattacks:DeepFool": {"steps": 10},
    "torchattacks:APGD": {"eps": 0.1, "steps": 5, "loss": "ce"},
    "torchattacks:FAB": {"eps": 0.1, "steps": 5, "n_classes": 4},
    "torchattacks:Square": {"eps": 0.1, "n_queries": 30},
    "torchattacks:PGD": {"eps": 0.1, "steps": 5},
    "foolbox:LinfPGD": {"steps": 5, "epsilon": 0.1},
    "foolbox:L2DeepFoolAttack": {"steps": 10},
    "foolbox:L2CarliniWagnerAttack": {"steps": 20, "binary_search_steps": 2},
    "art:FastGradientMethod": {"eps": 0.1},
    "art:SquareAttack": {"eps": 0.1, "max_iter": 20, "verbose": False},
}
EPS = {name: 0.1 for name, arguments in CASES.items() if 0.1 in arguments.values()}


@pytest.fixture
def balanced(pixels):
    """A model that takes the images for different classes, in micro-batches of all of them."""
    network = small_network()
    with torch.no_grad():
        network[-1].bias -= as_model(network)(pixels).mean(0)
    return as_model(network, micro_batch=len(pixels))


@pytest.fixture(params=CASES)
def name(request):
    """An attack of a library that is installed."""
    pytest.importorskip(request.param.partition(":")[0])
    return request.param


def attacked(model, pixels, name):
    return library.perturb(
        model, pixels, model(pixels).argmax(1), generators=generators(len(pixels)), name=name,
        arguments=CASES[name],
    )  # fmt: skip


def direct(model, pixels, name):
    """The library, called as its documentation says."""
    labels, arguments = model(pixels).argmax(1), dict(CASES[name])
    package, _, attack = name.partition(":")
    if package == "torchattacks":
        import torchattacks

        return getattr(torchattacks, attack)(model, **arguments)(pixels, labels)
    if package == "foolbox":
        import foolbox

        epsilon = arguments.pop("epsilon", None)
        theirs = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
        raw, clipped, _ = getattr(foolbox.attacks, attack)(**arguments)(
            theirs, pixels, labels, epsilons=epsilon
        )
        return raw if epsilon is None else clipped
    from art.attacks import evasion
    from art.estimators.classification import PyTorchClassifier

    theirs = PyTorchClassifier(
        model, loss=torch.nn.CrossEntropyLoss(), input_shape=tuple(pixels.shape[1:]),
        nb_classes=4, clip_values=(0, 1), device_type="cpu",
    )  # fmt: skip
    attack = getattr(evasion, attack)(theirs, **arguments)
    return torch.from_numpy(attack.generate(pixels.numpy(), labels.numpy()))


def test_images_may_lie_in_memory_as_files_have_them(balanced, pixels, name):
    """Channel by channel, pixel by pixel."""
    change = attacked(balanced, pixels, name)
    turned = pixels.to(memory_format=torch.channels_last)
    torch.testing.assert_close(attacked(balanced, turned, name).pixels, change.pixels)


def test_a_librarys_attack_is_the_librarys(balanced, pixels, name):
    assert library.fault(name, CASES[name]) == ""
    before = {key: value.clone() for key, value in balanced.state_dict().items()}
    change = attacked(balanced, pixels, name)
    with library.seeded(generators(1)[0]):
        expected = direct(balanced, pixels.clone(), name)
    assert torch.equal(change.pixels, expected.detach() - pixels)
    assert torch.equal(change.pixels, attacked(balanced, pixels, name).pixels)
    assert change.pixels.any()
    assert change.pixels.abs().max() <= EPS.get(name, 1) + 1e-6
    assert (change.evaluations > 0).all()
    assert not balanced.training
    assert all(torch.equal(before[key], value) for key, value in balanced.state_dict().items())


def test_their_arguments_are_checked(name):
    assert "got 'epz'" in library.fault(name, CASES[name] | {"epz": 0.1})
