"""The base of every part of params.yaml, the kinds of its values, and the messages of faults."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from reprlib import Repr
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

Name = Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
Line = Annotated[str, Field(pattern=r"^[^\n]+$")]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
LEAST, MOST = 8, 2048  # px of a side
Side = Annotated[int, Field(ge=LEAST, le=MOST)]


def _odd(number: int) -> int:
    if number % 2 == 0:
        raise ValueError(f"wanted an odd number of px, got {number}")
    return number


Window = Annotated[int, Field(ge=1), AfterValidator(_odd)]  # px of a side, with a middle


def sides(size: int | Sequence[int]) -> tuple[int, int]:
    """Returns the height and the width in px of a size: a number, for a square, or both of them."""
    height, width = (size, size) if isinstance(size, int) else size
    return int(height), int(width)


def size_of(height: int, width: int) -> int | list[int]:
    """Returns sides in px as a size, the inverse of `sides`: one number for a square."""
    return int(height) if height == width else [int(height), int(width)]


def in_words(size: int | Sequence[int]) -> str:
    """Returns a size as people read it: '64 px', or '24 x 40 px' of height and width."""
    return f"{' x '.join(str(side) for side in dict.fromkeys(sides(size)))} px"


def _as_size(value: Any) -> Any:
    """Returns a size as `size_of` does; other values than sizes are refused in one sentence."""
    parts = value if isinstance(value, list) and len(value) == 2 else [value]
    if not all(type(side) is int and LEAST <= side <= MOST for side in parts):
        raise ValueError(
            f"wanted a side in px, a whole number from {LEAST} to {MOST}, or [height, width], got "
            f"{_SHORT.repr(value)}"
        )
    return size_of(*sides(value))


Size = Annotated[int | list[int], BeforeValidator(_as_size)]


class SettingsError(Exception):
    """params.yaml is not valid; the message names each fault."""


class Section(BaseModel):
    """A part of params.yaml: unknown keys are refused, values are not converted."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @model_validator(mode="before")
    @classmethod
    def _knows_its_keys(cls, content: Any) -> Any:
        if isinstance(content, cls):
            return content
        there = ", ".join(sorted(cls.model_fields)) or "none"
        if not isinstance(content, dict):
            raise ValueError(f"wanted a map of these keys: {there}; got {_SHORT.repr(content)}")
        strange = [key for key in content if key not in cls.model_fields]
        if strange:
            names = ", ".join(_SHORT.repr(key) + nearest(key, cls.model_fields) for key in strange)
            raise ValueError(f"no key {names}; there are: {there}")
        return content


def nearest(name: object, names: Iterable[str]) -> str:
    """Returns the most similar of some names in brackets, for messages; '' where none is similar.

    Upper and lower case count as alike.
    """
    by_lower = {each.lower(): each for each in names}
    (first, *_) = [*get_close_matches(str(name).lower(), by_lower, 1), ""]
    return f" (perhaps '{by_lower[first]}')" if first else ""


def lines_of(fault: ValidationError, place: str) -> list[str]:
    """Returns a line for each error of pydantic: the place, the valid values, the given value."""
    lines: list[str] = []
    choices: dict[str, tuple[list[str], Any]] = {}  # by place: kinds of which one was wanted
    for error in fault.errors():
        parts = [str(part) for part in error["loc"]]
        if len(parts) > 2 and parts[2] in _KINDS.get(parts[0], ()):
            del parts[2]
        kinds = [
            i for i, part in enumerate(parts) if part in _WORDS and i >= max(2, len(parts) - 2)
        ]
        if kinds and error["type"] != "value_error":
            parts, kind = parts[: kinds[0]], _WORDS[parts[kinds[0]]]
            where = ".".join([place, *parts] if place else parts)
            wanted, _ = choices.setdefault(where, ([], error["input"]))
            wanted += [] if kind in wanted else [kind]
            continue
        where = ".".join([place, *parts] if place else parts)
        lines += [f"{where}: {line}" if where else line for line in _texts(error, parts)]
    for where, (wanted, value) in choices.items():
        *others, last = wanted
        text = f"{', '.join(others)} or {last}" if others else last
        lines.append(f"{where}: wanted {text}, got {_given(value)}")
    return [line.replace(".[key]:", ":") for line in lines]


def _texts(error: Any, parts: Sequence[str]) -> list[str]:
    """Returns the text of an error of pydantic, a line or more."""
    kind, given, about = error["type"], _given(error["input"]), error.get("ctx", {})
    text = error["input"] if isinstance(error["input"], str) else ""
    if kind == "missing":
        return ["wanted, but not there"]
    if kind == "value_error":
        return str(about["error"]).splitlines()
    if "[key]" in parts:
        return ["wanted a name of a-z, 0-9 and _ only"]
    if kind == "union_tag_not_found":
        return [f"wanted `{about['discriminator'][1:-1]}:` beside the other keys, got {given}"]
    if kind == "union_tag_invalid":
        tags = about["expected_tags"]
        near = nearest(about["tag"], tags.replace("'", "").split(", "))
        return [
            f"wanted `{about['discriminator'][1:-1]}:` one of {tags}, got '{about['tag']}'{near}"
        ]
    if kind == "literal_error":
        near = nearest(text, about["expected"].replace(" or ", ", ").split("'")[1::2])
        return [f"wanted {about['expected']}, got {given}{near}"]
    if kind == "string_pattern_mismatch":
        return [f"wanted {_PATTERNS.get(about['pattern'], about['pattern'])}, got {given}"]
    if kind in _BOUNDS:
        words, key = _BOUNDS[kind]
        return [f"wanted {words.format(about[key])}, got {given}"]
    return [f"wanted {_WANTED.get(kind, error['msg'])}, got {given}"]


def _given(value: Any) -> str:
    """Returns a value as a message shows it."""
    return "nothing" if value is None else _SHORT.repr(value)


# The kind of a value that was wanted, by pydantic's name of the error.
_WANTED = {
    "int_type": "a whole number", "int_from_float": "a whole number",
    "int_parsing": "a whole number", "float_type": "a number", "float_parsing": "a number",
    "finite_number": "a finite number", "bool_type": "true or false",
    "bool_parsing": "true or false", "string_type": "text (in quotes if it looks like a number)",
    "list_type": "a list", "dict_type": "a map of names to values",
    "none_required": "null", "string_too_short": "text that is not empty",
}  # fmt: skip
_BOUNDS = {
    "greater_than": ("a number above {:g}", "gt"), "less_than": ("a number below {:g}", "lt"),
    "greater_than_equal": ("a number of at least {:g}", "ge"),
    "less_than_equal": ("a number of at most {:g}", "le"),
    "too_short": ("at least {} of them", "min_length"),
    "too_long": ("at most {} of them", "max_length"),
}  # fmt: skip
_PATTERNS = {
    r"^[a-z0-9_]+$": "a name of a-z, 0-9 and _ only",
    r"^[^\n]+$": "a line of text",
    r"^[0-9a-f]{64}$": "64 digits, 0-9 and a-f, as `sha256sum` prints them",
    r"^[\w.]+:\w+$": "a function as `module:function`",
}
# Pydantic puts the kinds of a value that may be of several into the places of faults.
_WORDS = {
    "bool": "true or false", "int": "a whole number", "float": "a number", "str": "text",
    "list[int]": "a list of whole numbers",
}  # fmt: skip
# Pydantic puts the kind of a set and the paper of a study into the places of faults.
_KINDS = {
    "sets": ("photos", "digits", "folder", "torchvision"),
    "studies": ("renkhoff2022", "tan2023", "klawikowska2020", "chakraborty2022", "zhang2020"),
}
# A given value may have any length, and people read the message.
_SHORT = Repr()
_SHORT.maxstring = _SHORT.maxother = 80
_SHORT.maxlist = _SHORT.maxdict = 20
