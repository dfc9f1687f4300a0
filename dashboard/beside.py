"""Two cells, of one study or of two, whose rows stand in one figure."""

from pathlib import Path

import address
import frame
import page
import pandas as pd
import streamlit as st

from camdrift import storage

# A cell may be called 'none' or 'nan': only an empty field is a missing value.
READING = {"keep_default_na": False, "na_values": [""], "dtype": {"cell": str, "layer": str}}


@st.cache_data(max_entries=64)
def _table(file: Path, stamp: float) -> pd.DataFrame:
    return pd.read_csv(file, **READING)


def _of(study: str, table: str, query: str) -> dict[str, pd.DataFrame]:
    """Returns the rows of a study's table, by cell; {} of one that is not here, or of before."""
    file = storage.shown(study, "tables") / f"{table}.csv"
    try:
        rows = _table(file, file.stat().st_mtime).query(query)
    except (OSError, NameError, KeyError, ValueError):  # not built, half built, other columns
        return {}
    return {str(cell): part for cell, part in rows.groupby("cell", sort=False)}


def rows(view: frame.View, cell: str, table: str, query: str) -> dict[str, pd.DataFrame] | None:
    """Shows the choice of another cell, and returns the rows of both by the cells' names.

    None if the cell itself has no such rows, or no other has.

    Args:
        view: the study on screen.
        cell: its cell.
        table: from which the rows are.
        query: which of them, as of pandas.
    """
    own = _of(view.study, table, query).get(cell)
    others = {
        f"{study}: {name}": rows
        for study in frame.plans(frame.current_settings())
        for name, rows in _of(study, table, query).items()
        if (study, name) != (view.study, cell)
    }
    if own is None or not others:
        return None
    page.subheader("Another cell or network in one figure")
    other = address.choice(st, "Beside", list(others), key="beside")
    page.reads([storage.shown(other.partition(": ")[0], "tables") / f"{table}.csv"])
    return {f"{view.study}: {cell}": own, other: others[other]}
