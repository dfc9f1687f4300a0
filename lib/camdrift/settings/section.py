"""The base of every part of params.yaml, the kinds of its values, and the messages of faults."""

from collections.abc import Sequence
from reprlib import Repr
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails

Name = Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
Line = Annotated[str, Field(pattern=r"^[^\n]+$")]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
LEAST, MOST = 8, 2048  # px of a side
Side = Annotated[int, Field(ge=LEAST, le=MOST)]


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
            names = ", ".join(_SHORT.repr(key) for key in strange)
            raise ValueError(f"no key {names}; there are: {there}")
        return content


def lines_of(fault: ValidationError, place: str) -> list[str]:
    """Returns a line for each error of pydantic: the place, the valid values, the given value."""
    lines = []
    for error in fault.errors():
        parts = [str(part) for part in error["loc"] if str(part) not in _KINDS]
        where = ".".join([place, *parts] if place else parts)
        if error["type"] == "missing":
            lines.append(f"{where}: wanted, but not there")
        elif error["type"] == "value_error":
            text = str(error["ctx"]["error"])
            lines += [f"{where}: {line}" if where else line for line in text.splitlines()]
        elif error["type"] == "string_pattern_mismatch" and "[key]" in parts:
            where = where.removesuffix(".[key]")
            lines.append(f"{where}: wanted a name of a-z, 0-9 and _ only")
        elif error["type"] == "union_tag_not_found":
            lines.append(f"{where}.{_tag(error)}: wanted, but not there")
        elif error["type"] == "union_tag_invalid":
            context = error["ctx"]
            lines.append(
                f"{where}.{_tag(error)}: wanted one of {context['expected_tags']}, got "
                f"{_SHORT.repr(context['tag'])}"
            )
        else:
            lines.append(
                f"{where}: wanted {_expectation(error)}, got {_SHORT.repr(error['input'])}"
            )
    return lines


def _tag(error: ErrorDetails) -> str:
    return error["ctx"]["discriminator"].strip("'")


def _expectation(error: ErrorDetails) -> str:
    """Returns the valid values in an error of pydantic."""
    context = error.get("ctx", {})
    if context.get("pattern") in _PATTERNS:
        return _PATTERNS[context["pattern"]]
    words = _WORDS.get(error["type"])
    # Pydantic may have an error that no setting has led to so far.
    return words.format(**context) if words else f"another value ({error['msg']})"


_WORDS = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "text",
    "string_too_short": "text that is not empty",
    "list_type": "a list",
    "dict_type": "a map",
    "model_type": "a map",
    "greater_than": "a number above {gt:g}",
    "greater_than_equal": "a number of at least {ge:g}",
    "less_than": "a number below {lt:g}",
    "less_than_equal": "a number of at most {le:g}",
    "too_short": "at least {min_length} in it",
    "too_long": "at most {max_length} in it",
    "literal_error": "{expected}",
}
_PATTERNS = {
    r"^[\w.]+:\w+$": "a function, package.module:function",
    r"^[0-9a-f]{64}$": "64 digits of 0-9 and a-f",
    r"^[^\n]+$": "text of one line",
    r"^[a-z0-9_]+$": "a name of a-z, 0-9 and _ only",
}
# Pydantic puts the kind of a set and the paper of a study into the places of faults.
_KINDS = {
    "photos", "digits", "folder", "torchvision",
    "renkhoff2022", "tan2023", "klawikowska2020", "chakraborty2022",
}  # fmt: skip
# A given value may have any length, and people read the message.
_SHORT = Repr()
_SHORT.maxstring = _SHORT.maxother = 80
_SHORT.maxlist = _SHORT.maxdict = 20
