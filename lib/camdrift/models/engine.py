"""The engine: a network's forward that keeps the tensors of its hook points.

One forward is recorded, see `recorder`; a working forward keeps the results of some of its calls.
No graph is asked for: a forward may branch, loop and write in place, as long as it makes the same
calls each time. There are no hooks: nothing remains on the network, not even after an error.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from camdrift.models import architectures, checkpoints, checks, folding
from camdrift.models.calls import Call, Recording, UnwatchableError
from camdrift.models.copies import frozen
from camdrift.models.forward import Forward
from camdrift.models.hook_points import HookPoint
from camdrift.models.recorder import record


class Watched:
    """A frozen network whose forward was recorded, its batch norm folded into its convs.

    Folding makes a VGG a quarter faster; it changes logits in the sixth digit.

    network: inputs -> logits; only folding changes it.
    recording: of its forward.

    Args:
        network: to watch; it is frozen, and changed.
        inputs: of one image at least.
        fold: whether to fold batch norm.

    Raises:
        UnsoundError: part of it stays in training mode.
    """

    def __init__(self, network: nn.Module, inputs: Tensor, *, fold: bool = True) -> None:
        self.network = network
        recording = record(network, inputs)
        checks.refuse_training(recording.calls)
        if fold and inputs.itemsize >= 4:  # half precision would show that folding rounds otherwise
            folding.fold_norms(network, recording)
        # Once more: norms are folded, and what a first call computes and keeps is there.
        self.recording: Recording = record(network, inputs)
        self._parameter = next(network.parameters(), None)

    @property
    def calls(self) -> list[Call]:
        """The calls of its forward."""
        return self.recording.calls

    def __call__(
        self, inputs: Tensor, points: Sequence[HookPoint], *, leaves: bool = False
    ) -> tuple[Any, tuple[Tensor, ...]]:
        """Returns the network's output and the tensors of hook points.

        With `leaves`, the graph of gradients begins at the points: one that does not depend on
        another is a leaf, the layers before it keep nothing for a backward, and a backward stops
        there. Tensors of half precision, from autocast, become single precision.

        Raises:
            OtherCallsError: the forward makes other calls than when it was recorded.
        """
        tensors: dict[int, Tensor] = {}

        first = _first(self.calls, [point.place for point in points]) if leaves else set()

        def keep(point: HookPoint, call: Call, result: Tensor) -> Tensor:
            tensor = _whole(point.maps(result))
            if point.place in first or (leaves and not tensor.requires_grad):
                tensor = tensor.detach().requires_grad_()
            tensors[point.place] = tensor
            following = point.restored(tensor, result)
            # A view of it may be written into.
            return following * 1 if call.overwritten and following is tensor else following

        at = {point.place: partial(keep, point) for point in points}
        # Some devices replace parameters when a network is moved to them.
        known = next(self.network.parameters(), None) is self._parameter
        with checkpoints.passed(), Forward(self.recording, at, known=known) as run:
            output = run.current(self.network(inputs))
        lost = [point.name for point in points if point.place not in tensors]
        if lost:
            raise UnwatchableError(
                f"no gradient passes '{lost[0]}', which is computed under `torch.no_grad`, as in "
                "the forward of an `autograd.Function`; wanted other layers= or hook_points="
            )
        return output, tuple(tensors[point.place] for point in points)


def _first(calls: list[Call], places: Sequence[int]) -> set[int]:
    """Returns those of some places that depend on none of the others."""
    after: set[int] = set()
    for place, call in enumerate(calls):
        if any(source in after or source in places for source in call.inputs):
            after.add(place)
    return set(places) - after


def _whole(tensor: Tensor) -> Tensor:
    """Returns a tensor in single precision at least: half precision is too coarse for sums."""
    return tensor.float() if tensor.itemsize < 4 else tensor


class WithModules(nn.Module):
    """A network whose hook points pass through modules, for libraries that hook modules.

    It shares the weights, and they require gradients, which second derivatives need.
    """

    def __init__(self, watched: Watched, points: Sequence[HookPoint]) -> None:
        super().__init__()
        self.network = frozen(watched.network).requires_grad_()
        self.points = nn.ModuleList(nn.Identity() for _ in points)
        self._recording = watched.recording
        self._hook_points = tuple(points)

    def forward(self, inputs: Tensor) -> Any:
        """Returns the network's output."""

        def passed(module: nn.Module, point: HookPoint, call: Call, result: Tensor) -> Tensor:
            # A concatenation's gradients are views, which no library may change.
            return point.restored(module(point.maps(result) * 1) * 1, result)

        pairs = zip(self.points, self._hook_points, strict=True)
        at = {point.place: partial(passed, module, point) for module, point in pairs}
        with checkpoints.passed(), Forward(self._recording, at, known=False) as run:
            return run.current(self.network(inputs))


def watch(network: nn.Module, inputs: Tensor, *, fold: bool = True) -> Watched:
    """Returns a watched copy of a network that shares its weights; raises as `Watched` does.

    On a CPU, its weights are stored with channels last, unless its forward fails with them, or may
    do other things: some call `view` on tensors, which asks for the usual order, and some write
    into a reshaped tensor, which is a copy of another in one order alone.
    """
    clone = frozen(network)
    if not any(weight.is_cuda for weight in clone.parameters()):
        architectures.channels_last(clone)
        try:
            watched = Watched(clone, inputs, fold=fold)
        except checks.UnsoundError:
            raise
        except RuntimeError:
            watched = None
        if watched is not None and not watched.recording.depends_on_layout:
            return watched
        clone = frozen(network)
    return Watched(clone, inputs, fold=fold)
