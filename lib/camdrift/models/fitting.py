"""Fitting: the names and shapes of a state dict against those of a network."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, combinations
from typing import Any

import torch
from torch import Tensor, nn

from camdrift.models import architectures
from camdrift.models.architectures import RefusedError
from camdrift.settings import imports

# Of wrappers: DataParallel, Lightning, torch.compile, a network inside another.
PREFIXES = ("module.", "model.", "_orig_mod.", "backbone.")
FEW = 3  # names or shapes that a message has
Facts = dict[str, Any]  # that define a network: classes, head, width and others
Build = Callable[[Facts], nn.Module]


def bare(state: Mapping[str, Tensor], own: Collection[str] = ()) -> dict[str, Tensor]:
    """Returns a state dict without wrappers' prefixes, one or several.

    A prefix goes where all names begin with it and none of the network's `own` names does.
    """
    state = dict(state)
    while state:
        prefix = next((p for p in PREFIXES if all(name.startswith(p) for name in state)), None)
        if prefix is None or any(name.startswith(prefix) for name in own):
            break
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


@dataclass(frozen=True)
class Misfit:
    """The difference between a state dict and that of a network.

    lacking: names that the network has alone.
    strange: names that the file has alone.
    shapes: name -> shape in the file, shape in the network, where they differ.
    """

    lacking: list[str]
    strange: list[str]
    shapes: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]

    def __bool__(self) -> bool:
        """Returns whether there is a difference."""
        return bool(self.lacking or self.strange or self.shapes)

    def lines(self) -> list[str]:
        """Returns a line for each kind of difference, with the first few names."""
        lines = []
        for names, place in ((self.strange, "file"), (self.lacking, "network")):
            if names:
                lines.append(f"in the {place} alone: {_first(names)}")
        if self.shapes:
            named = [f"{name} {_side(a)}, not {_side(b)}" for name, (a, b) in self.shapes.items()]
            lines.append(f"of another shape in the file: {_first(named)}")
        return lines


def misfit(network: nn.Module, state: Mapping[str, Tensor], *, dense: bool = True) -> Misfit:
    """Returns the difference between a state dict and a network's own.

    Args:
        network: the network.
        state: the state dict.
        dense: False leaves out the dense layers, which may have weights of their own, and what may
            be those of the state dict.
    """
    own = network.state_dict()
    spared = () if dense else architectures.dense_prefixes(network)
    # Older weights lack a norm's count of batches, which is not used in eval mode.
    lacking = [
        name for name in own
        if name not in state and not name.endswith("num_batches_tracked")
        and not name.startswith(spared)
    ]  # fmt: skip
    shapes = {
        name: (tuple(state[name].shape), tuple(value.shape))
        for name, value in own.items()
        if name in state and state[name].shape != value.shape and not name.startswith(spared)
    }
    # Without its dense layers, a head by another name is none of the network's concern.
    strange = [name for name in state if name not in own and (dense or state[name].dim() > 2)]
    return Misfit(lacking, strange, shapes)


def mended(
    network: nn.Module,
    state: Mapping[str, Tensor],
    facts: Facts,
    build: Build,
    *,
    dense: bool = True,
) -> Facts:
    """Returns the fewest facts, one or two, whose change lets a state dict fit; {} if none does.

    Each is tried: the network is built with it.

    Args:
        network: the network that the state dict does not fit.
        state: the state dict.
        facts: of the network.
        build: facts -> a network, of which names and shapes are read.
        dense: as of `misfit`.
    """
    single = list(_changes(network, state, facts))
    pairs = ({**a, **b} for a, b in combinations(single, 2) if not a.keys() & b.keys())
    for change in chain(single, pairs):
        if all(facts.get(key) == value for key, value in change.items()):
            continue
        try:
            if not misfit(build({**facts, **change}), state, dense=dense):
                return change
        except Exception:  # of a network that cannot be built so
            continue
    return {}


def _changes(network: nn.Module, state: Mapping[str, Tensor], facts: Facts) -> Iterator[Facts]:
    """Yields changes of one fact that a state dict suggests by its shapes."""
    own = network.state_dict()
    names = [*(name for name in own if name in state), *(name for name in state if name not in own)]
    shapes = [tuple(state[name].shape) for name in names if state[name].dim()]
    rows = [
        a[0] for a, b in misfit(network, state).shapes.values() if a and b[:1] == (_rows(facts),)
    ]
    rows += [shape[0] for shape in [s for s in shapes if len(s) == 2][-1:] + shapes[-1:]]
    yield from ({"classes": count} for count in dict.fromkeys(rows) if count > 1)
    if not architectures.is_own(facts["architecture"]):
        yield from ({"head": head} for head in ("torchvision", "pooled"))
        yield {"head": "sigmoid", "classes": 2}
    (conv, *_) = [*(shape for shape in shapes if len(shape) == 4), None]
    if conv and conv[1] in (1, 3):
        yield {"mean": [0.5] * conv[1]}
    if facts.get("arguments"):
        yield {"arguments": {}}
    (first, *_) = [*(value.shape[0] for value in own.values() if value.dim() == 4), None]
    widths = [1.0, *([round(facts["width"] * conv[0] / first, 4)] if conv and first else [])]
    yield from ({"width": width} for width in widths if 0 < width <= 1)


def _rows(facts: Facts) -> int:
    """Returns the number of logits of a network."""
    return 1 if facts["head"] == "sigmoid" else facts["classes"]


def load(
    network: nn.Module,
    state: Mapping[str, Tensor],
    facts: Facts,
    build: Build,
    *,
    place: str,
    image_set: str,
    own_head: bool,
) -> None:
    """Gives a network the tensors of a state dict, which it then holds itself.

    Args:
        network: the network.
        state: the state dict.
        facts: of the network.
        build: facts -> a network.
        place: of the model in the settings, `models.mine`.
        image_set: its set.
        own_head: whether the network keeps dense layers of its own where others do not fit.

    Raises:
        RefusedError: they do not fit; the message names the first differences, and the setting that
            mends them.
    """
    given = architectures.with_own_head(network, state) if own_head else state
    difference = misfit(network, state, dense=False) if own_head else None
    try:
        network.load_state_dict(given, assign=True)
    except RuntimeError as fault:
        difference = misfit(network, state)
        if not difference:  # of a network that checks more than names and shapes
            raise RefusedError(f"they cannot be loaded: {imports.message(fault)}") from fault
    if difference:
        own = f"{facts['architecture']} with {facts['classes']} classes"
        rest = ", its dense layers left out" if own_head else ""
        with torch.random.fork_rng(devices=[]):
            remedy = _remedy(network, state, facts, build, place, image_set, dense=not own_head)
        lines = [f"they do not fit {own}{rest}", *difference.lines(), remedy]
        raise RefusedError("\n  ".join(lines))


def _remedy(
    network: nn.Module,
    state: Mapping[str, Tensor],
    facts: Facts,
    build: Build,
    place: str,
    image_set: str,
    *,
    dense: bool,
) -> str:
    """Returns which setting lets a state dict fit a network, in words."""
    change = mended(network, state, facts, build, dense=dense)
    change = {key: value for key, value in change.items() if value != facts.get(key)}
    words = [f"`{place}.{key}: {value}`" for key, value in change.items() if key != "mean"]
    if "mean" in change:
        count = len(change["mean"])
        words.append(
            f"`channels: {count}` of sets.{image_set} with `mean: {[0.5] * count}` and `std: "
            f"{[0.25] * count}` of {place}"
        )
    text = " and ".join(words)
    if dense and not misfit(network, state, dense=False):
        text += ", or " if text else ""
        text += f"`{place}.new_head: true`, to train dense layers for the classes of the set"
    if text:
        return f"wanted {text}"
    return (
        f"wanted weights of {facts['architecture']}, or another `{place}.architecture` or other "
        "`arguments:`: no change of `classes:`, `channels:`, `head:` or `width:` makes them fit"
    )


def _first(names: list[str]) -> str:
    more = f" and {len(names) - FEW} more" if len(names) > FEW else ""
    return ", ".join(names[:FEW]) + more


def _side(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "a number"
