"""Hook points of transformers and mixers: the tokens as they enter a block's token mixing.

At a block's own output they would explain less: the logits of a ViT depend on the last block's
class token alone, and the gradient at its other tokens is zero.
"""

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass

from torch.nn import functional as F

from camdrift.models.calls import (
    ADDS,
    ATTENTIONS,
    CONCATS,
    CONVS,
    LAYOUTS,
    MATMULS,
    NORMS,
    SOFTMAXES,
    TRANSPOSES,
    Call,
    Recording,
    UnwatchableError,
)
from camdrift.models.hook_points import Grid, HookPoint

MOST_EXTRA = 16  # tokens without a place in the image: of the class, distillation, registers
FAR = 12  # calls between a softmax and the product of queries and keys


@dataclass(frozen=True)
class _Mixing:
    """A call that mixes tokens.

    place: of the call.
    module: path of the module that makes it; where that is the network, the projection's name.
    entering: place of the call that returns the tokens which enter its projection.
    channels: of each token.
    dense: whether the projection is a dense layer, not a conv.
    """

    place: int
    module: str
    entering: int
    channels: int
    dense: bool


def mixes_tokens(recording: Recording) -> bool:
    """Returns whether the network mixes tokens that a dense layer projects, or a dense layer does.

    Attention whose queries come from a conv, as in a conv network with a few such blocks, does not
    count.
    """
    return any(mixing.dense for mixing in _mixings(recording.calls))


def block_points(recording: Recording, *, ordered: bool = True) -> tuple[HookPoint, ...]:
    """Returns the hook point of each block that mixes tokens, in forward order.

    Attention is known by its call, or by the softmax of a product, or of keys; mixing by a dense
    layer over transposed tokens, of two channels at least: a block over one channel weighs places,
    as a part of a conv block. The tokens are those that enter the projection to queries, or the
    dense layer: in most networks the result of the block's first norm. Where they enter in windows,
    it is the last tensor before that lies in the order of the image.

    Args:
        recording: of the network's forward.
        ordered: False: the tokens that enter, however they lie; the points have no grid.

    Raises:
        UnwatchableError: there is no such tensor.
    """
    calls = recording.calls
    modules: dict[int, list[str]] = {}
    grids: dict[int, Grid | None] = {}
    for mixing in _mixings(calls):
        place, grid = _ordered(mixing, recording) if ordered else (mixing.entering, None)
        grids[place] = grid
        modules.setdefault(place, []).append(mixing.module)
    places = sorted(grids)
    names = [_common([calls[place].module, *modules[place]]) for place in places]
    if len(set(names)) < len(names) or not all(names):
        names = ["+".join(dict.fromkeys(modules[place])) for place in places]
    return tuple(
        HookPoint(name, name, place, False, grids[place])
        for name, place in zip(names, places, strict=True)
    )


def _common(paths: list[str]) -> str:
    return ".".join(os.path.commonprefix([path.split(".") for path in paths]))


def _mixings(calls: list[Call]) -> Iterator[_Mixing]:
    for place, call in enumerate(calls):
        if not call.matters:
            continue
        if call.function in ATTENTIONS | SOFTMAXES:
            projection = _projection(place, calls)
        elif call.function is F.linear and _is_over_tokens(call, calls):
            projection = place
        else:
            continue
        if projection is None:
            continue
        start = calls[projection].first
        entering = None if start is None else _behind(start, calls, LAYOUTS)
        if start is None or entering is None or not calls[entering].of_images:
            continue
        dense = calls[projection].function not in CONVS
        over = projection == place and call.function is F.linear
        channels = calls[entering if over else start].shape[-1 if dense else 1]
        if channels == 1:
            continue
        module = _common([call.module, calls[projection].module]) or calls[projection].name
        yield _Mixing(place, module, entering, channels, dense)


def _source(call: Call) -> int | None:
    """Returns the place of the call whose result a call works on, None where it is no result."""
    return call.first if call.first is not None else next(iter(call.inputs), None)


def _behind(place: int | None, calls: list[Call], functions: set) -> int | None:
    """Returns the place of the first call, from a place back, of none of these functions."""
    while place is not None and calls[place].function in functions:
        place = _source(calls[place])
    return place


def _projection(place: int, calls: list[Call]) -> int | None:
    """Returns the place of the layer that projects tokens to the queries of an attention."""
    if calls[place].function is F.multi_head_attention_forward:
        return place
    query = _source(calls[place])
    if calls[place].function in SOFTMAXES and not _is_of_keys(place, calls):
        for _ in range(FAR):
            if query is None or calls[query].function in MATMULS:
                break
            query = _source(calls[query])
        if query is None or calls[query].function not in MATMULS:
            return None
        query = _source(calls[query])
    while query is not None and calls[query].function not in CONVS | {F.linear}:
        query = _source(calls[query])
    return query


def _is_of_keys(place: int, calls: list[Call]) -> bool:
    """Returns whether a softmax is that of the keys alone, as in factorised attention."""
    source = _behind(_source(calls[place]), calls, LAYOUTS)
    ends = {place}
    for user in range(place + 1, len(calls)):
        if calls[user].function in LAYOUTS and _source(calls[user]) in ends:
            ends.add(user)
    products = any(calls[user].function in MATMULS for end in ends for user in calls[end].users)
    return source is not None and calls[source].function is F.linear and products


def _is_over_tokens(call: Call, calls: list[Call]) -> bool:
    """Returns whether a dense layer works along the tokens of a transposed (n, t, d) tensor."""
    if call.first is None or calls[call.first].function not in TRANSPOSES:
        return False
    before = _source(calls[call.first])
    if before is None:
        return False
    shape, turned = calls[before].shape, calls[call.first].shape
    return (
        calls[before].function not in LAYOUTS
        and len(shape) == 3
        and turned == (shape[0], shape[2], shape[1])
    )


def _ordered(mixing: _Mixing, recording: Recording) -> tuple[int, Grid]:
    """Returns the place of the last tensor in the order of the image, and its grid."""
    calls = recording.calls
    place: int | None = mixing.entering
    while place is not None:
        before = _behind(place, calls, LAYOUTS)
        between = []
        while place is not None and place != before:
            between.append(place)
            place = _source(calls[place])
        # A layout may have undone another, as where windows are partitioned in two ways.
        for at in between if before is None else [before, *between]:
            grid = token_grid(at, recording, mixing.channels)
            if grid is not None and calls[at].results == 1:
                return at, grid
        if before is None or calls[before].function not in NORMS:
            break
        place = _source(calls[before])
    call = calls[mixing.entering]
    raise UnwatchableError(
        f"the tokens that enter {mixing.module} are {call.shape}, and their places in "
        "the image are unknown; wanted `reshape=`, a function from tokens to (n, channels, height, "
        "width), or hook_points='convs'"
    )


def token_grid(place: int, recording: Recording, channels: int | None = None) -> Grid | None:
    """Returns the grid of a call's result, None where it is in no order of the image.

    A grid has the proportions of the image. For a result of three dimensions, it is that of an
    earlier conv whose places leave the fewest extra tokens; without one, a grid of the tokens that
    alone made up this or an earlier result of three dimensions. Extra tokens come before the
    others, and are joined to them by a concatenation.

    Args:
        place: of the call.
        recording: of the network's forward.
        channels: of each token; None: unknown.
    """
    calls, images, (height, width) = recording.calls, recording.images, recording.size
    shape = calls[place].shape

    def fits(rows: int, columns: int) -> bool:
        return round(height / rows) == round(width / columns)

    if len(shape) == 4 and shape[0] == images:
        if _is_in_windows(place, calls):
            return None
        last = channels in (None, shape[3]) and fits(*shape[1:3])
        first = channels in (None, shape[1]) and fits(*shape[2:])
        if last and (not first or calls[place].function is F.layer_norm):
            return Grid(shape[1], shape[2], 0, "nhwd")
        return Grid(shape[2], shape[3], 0, "ndhw") if first else None
    if len(shape) != 3 or channels not in (None, shape[2]) or images not in shape[:2]:
        return None
    if not _is_of_places(place, calls):
        return None
    count = shape[1] if shape[0] == images else shape[0]
    before = [call.shape for call in calls[:place]]
    alone = {shape[1 if shape[0] == images else 0] for shape in before if len(shape) == 3} | {count}
    even = {(rows, round(rows * width / height)) for rows in range(1, count + 1)}
    for sides in (
        {(*call.shape[2:],) for call in calls[:place] if call.function in CONVS},
        {(rows, columns) for rows, columns in even if rows * columns in alone},
    ):
        extra = {
            (rows, columns): count - rows * columns
            for rows, columns in sorted(sides)
            if columns and 0 <= count - rows * columns <= MOST_EXTRA and fits(rows, columns)
        }
        whole = [(r, c) for r, c in sorted(sides) if r * c == shape[2] and fits(r, c)]
        if not extra and whole and channels is None and shape[0] == images:
            return Grid(*whole[0], 0, "ndt")
        if extra:
            rows, columns = min(extra, key=lambda side: extra[side])
            if extra[rows, columns] and not _is_after_extra(place, calls, images, rows * columns):
                return None
            return Grid(rows, columns, extra[rows, columns], "ntd" if shape[0] == images else "tnd")
    return None


def _is_in_windows(place: int, calls: list[Call]) -> bool:
    """Returns whether a result of four dimensions lies in windows, not in rows and columns.

    Each layout of six dimensions or more partitions an image into windows, or joins these again.
    """
    in_windows = False
    at: int | None = place
    while at is not None and calls[at].function in LAYOUTS | NORMS | ADDS:
        before = _source(calls[at])
        if before is not None and math.prod(calls[at].shape) == math.prod(calls[before].shape):
            in_windows ^= len(calls[at].shape) >= 6 > len(calls[before].shape)
        at = before
    return in_windows


def _is_of_places(place: int, calls: list[Call]) -> bool:
    """Returns whether tokens stem from those of the image, one by one.

    Attention returns tokens in the order of its queries: those of a Perceiver are learned.
    """
    visited: set[int] = set()
    waiting = [place]
    while waiting:
        at = waiting.pop()
        call = calls[at]
        if at in visited or not call.of_images:
            continue
        visited.add(at)
        if not call.inputs:
            return True
        query = _source(call) if call.function in ATTENTIONS | MATMULS else None
        waiting.extend(call.inputs if query is None else [query])
    return False


def _is_after_extra(place: int, calls: list[Call], images: int, count: int) -> bool:
    """Returns whether extra tokens are joined before the `count` of the image."""
    visited: set[int] = set()
    waiting = [place]
    while waiting:
        at = waiting.pop()
        if at in visited:
            continue
        visited.add(at)
        call = calls[at]
        waiting.extend(call.inputs)
        if call.function in CONCATS and len(call.shape) == 3 and call.inputs:
            axis = 1 if call.shape[0] == images else 0
            shapes = [calls[part].shape for part in call.inputs]
            counts = [shape[axis] for shape in shapes if len(shape) == 3]
            if count in counts and counts[-1] != count:
                return False
    return True
