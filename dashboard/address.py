"""The address of a view: the choices that it holds, and links that hold others."""

import contextlib
import json
from collections.abc import Collection, Sequence
from typing import Any

import page
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from camdrift.analysis import drawing

OPEN = "open"  # the part of an address that holds the choices of a link
# The keys of such choices.
LINKED = {"study", "claim", "verdicts", "in_cell", "at_strength", "with_method", "explains",
          "order", "image"}  # fmt: skip
POLICIES = {"own_top1": "the image's own top class", "seed_class": "the clean image's class"}
FORMATS = {"at_strength": drawing.percent, "explains": POLICIES.get}  # of widgets, by key


def unknown(key: str, label: str, options: Collection[str]) -> str:
    """Returns a sentence if the address names an option that is not there, or ''.

    Call this before the widget of that key, which drops such a name from the address.
    """
    asked = st.query_params.get(key)
    if asked is None or asked in options or key in st.session_state:
        return ""
    wanted = page.plain(asked[:80])
    return f"{label}: the address asks for {wanted}, which is not among the choices here."


def link(to: str, label: str, *, icon: str | None = None, **choices: Any) -> None:
    """Shows a link to a page with these choices, values by the keys of its widgets.

    The address of the link has them twice: as the widgets write them, so that it can be shared, and
    in a part of its own, which `follow` reads, since a widget prefers the value that it had before.
    Streamlit drops the part of a widget that the page with the link has, too: keys must differ.
    """
    texts = {key: FORMATS.get(key, str)(value) for key, value in choices.items() if value != []}
    st.page_link(f"app_pages/{to}.py", label=label, icon=icon,
                 query_params=texts | {OPEN: json.dumps(choices)})  # fmt: skip


def follow() -> None:
    """Takes the choices of the link that led here; call this before any widget."""
    text = st.query_params.get(OPEN)
    if text is None:
        return
    del st.query_params[OPEN]
    with contextlib.suppress(ValueError):
        choices = json.loads(text)
        if isinstance(choices, dict):
            st.session_state.update({key: choices[key] for key in LINKED & choices.keys()})


def forget_stale(key: str, options: Collection) -> None:
    """Drops the chosen values that are no longer among the options; keeps the others.

    Call this before the widget of that key is created, see `choice`.
    """
    if key in st.session_state and not set(st.session_state[key]) <= set(options):
        st.session_state[key] = [one for one in st.session_state[key] if one in options]


def choice(
    place: DeltaGenerator, label: str, options: Sequence, *, key: str, default: Any = None,
    **more: Any,
) -> Any:  # fmt: skip
    """Shows a choice that the address keeps, and returns it.

    A change of study, cell or page may change the options of a choice. The widget alone would then
    show its default while the address kept the old choice: here both become the default, which is
    the first option unless given. Every run passes the default to the widget, since the address
    leaves out a choice that equals the widget's default.
    """
    default = options[0] if default is None else default
    index = list(options).index(default)
    last = st.session_state.get(f"default of {key}", default)
    st.session_state[f"default of {key}"] = default
    if (
        key in st.session_state
        and st.session_state[key] not in options
        or last != default
        and st.session_state.get(key) == last
    ):
        st.session_state[key] = default
    shown = more.get("format_func") or str
    if missing := unknown(key, label, [shown(option) for option in options]):
        place.warning(f"{missing} Shown is {page.plain(shown(default))}.")
    value = place.selectbox(label, options, index=index, key=key, bind="query-params", **more)
    page.chose(label, str(shown(value)))
    return value
