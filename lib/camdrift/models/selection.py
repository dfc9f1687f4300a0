"""Selection: the hook points at which a network is explained."""

from collections.abc import Callable, Sequence
from typing import Literal

from camdrift.models import blocks
from camdrift.models.calls import Recording, UnwatchableError
from camdrift.models.hook_points import HookPoint, conv_points

Kind = Literal["convs", "blocks"]
Choice = Kind | Sequence[str] | Callable[[Recording], Sequence[HookPoint]] | None
SOUGHT = {
    "convs": "two-dimensional conv layer that a gradient of its output can reach",
    "blocks": "block that mixes tokens by attention or by a dense layer",
}


def select(
    recording: Recording, choice: Choice = None, *, ordered: bool = True
) -> tuple[HookPoint, ...]:
    """Returns the hook points at which a network is explained, in forward order.

    Args:
        recording: of the network's forward.
        choice: 'convs' or 'blocks'; names of modules, whose results are then explained; a function
            of the recording. None: 'blocks' if a dense layer mixes the tokens, or projects them for
            attention, and if their places in the image are known; otherwise 'convs'.
        ordered: False: tokens stay as they are, with no grid.

    Raises:
        UnwatchableError: there is no hook point, or the places of tokens in the image are unknown.
        ValueError: there is nothing of a name.
    """
    if callable(choice):
        points = tuple(choice(recording))
    elif choice is None or isinstance(choice, str):
        points = _of_kind(choice or _usual(recording), recording, ordered=ordered)
    else:
        points = tuple(_result(name, recording, ordered=ordered) for name in choice)
    if not points:
        raise UnwatchableError("wanted a hook point at least, got none")
    return tuple(sorted(points, key=lambda point: point.place))


def _usual(recording: Recording) -> Kind:
    """Returns the kind of hook point of a network when none is named."""
    if not blocks.mixes_tokens(recording):
        return "convs"
    try:
        blocks.block_points(recording)
    except UnwatchableError:
        return "convs" if conv_points(recording.calls) else "blocks"
    return "blocks"


def _of_kind(kind: str, recording: Recording, *, ordered: bool) -> tuple[HookPoint, ...]:
    if kind not in SOUGHT:
        raise ValueError(f"wanted hook points 'convs', 'blocks' or names, got '{kind}'")
    if kind == "convs":
        points = conv_points(recording.calls)
    else:
        points = blocks.block_points(recording, ordered=ordered)
    if not points:
        raise UnwatchableError(f"the network has no {SOUGHT[kind]}")
    return points


def _result(name: str, recording: Recording, *, ordered: bool) -> HookPoint:
    """Returns the hook point of a module's result."""
    if name not in recording.results:
        raise ValueError(
            f"no module '{name}' returns a tensor; wanted names such as "
            + ", ".join([path for path in recording.results if path][:8])
        )
    place = recording.results[name]
    grid = blocks.token_grid(place, recording) if ordered else None
    if ordered and grid is None:
        raise UnwatchableError(
            f"'{name}' returns {recording.calls[place].shape}, and its places in the image are "
            "unknown; wanted `reshape=`, a function from it to (n, channels, height, width)"
        )
    return HookPoint(name, name, place, False, grid)
