"""Settings that nobody would write: each is accepted or refused by a message, not a traceback."""

import copy
import io
from typing import Any

from hypothesis import HealthCheck, given, settings, strategies
from ruamel.yaml import YAML

from camdrift import attacks
from camdrift.settings import Settings, SettingsError, params
from conftest import ROOT

CONTENT = YAML(typ="safe").load(ROOT / "params.yaml")
EXTREMES = [
    0, -1, 1, 10**30, -(10**30), 1e308, -1e308, 5e-324, float("inf"), float("nan"), "", "\0",
    "\u202e", "\U0001f4a5", "../..", "${sets}", "null", "a" * 5000, True, False, None, [], {},
    [[]], {"": {}}, [None],
]  # fmt: skip

leaves = strategies.one_of(
    strategies.sampled_from(EXTREMES), strategies.integers(), strategies.floats(),
    strategies.text(max_size=20), strategies.booleans(), strategies.none(),
)  # fmt: skip
trees = strategies.recursive(
    leaves,
    lambda inner: (
        strategies.lists(inner, max_size=4)
        | strategies.dictionaries(strategies.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)


def paths(tree: Any, path: tuple = ()) -> list[tuple]:
    """Every place in a tree of dicts and lists."""
    result = [path] if path else []
    items = tree.items() if isinstance(tree, dict) else ()
    items = enumerate(tree) if isinstance(tree, list) else items
    return result + [p for key, branch in items for p in paths(branch, (*path, key))]


places = strategies.sampled_from(paths(CONTENT))


def changed(content: dict, path: tuple, how: str, value: Any, name: str) -> dict:
    content = copy.deepcopy(content)
    *parents, last = path
    branch: Any = content
    for key in parents:
        branch = branch[key]
    if how == "set":
        branch[last] = value
    elif how == "remove":
        del branch[last]
    elif isinstance(branch, dict):
        branch[name] = value
    else:
        branch.insert(0, value)
    return content


@settings(max_examples=2000, deadline=None, derandomize=True, database=None,
          suppress_health_check=list(HealthCheck))  # fmt: skip
@given(
    places, strategies.sampled_from(["set", "remove", "add"]), trees, strategies.text(max_size=8)
)
def test_any_change_is_accepted_or_refused_by_a_message(path, how, value, name):
    try:
        accepted = params.parse(changed(CONTENT, path, how, value, name))
        assert isinstance(accepted, Settings)
        assert all(line.strip() for line in attacks.faults(accepted))
    except SettingsError as fault:
        assert str(fault).strip()
        assert len(str(fault)) < 20_000


@settings(max_examples=200, deadline=None, derandomize=True, database=None,
          suppress_health_check=list(HealthCheck))  # fmt: skip
@given(strategies.one_of(strategies.binary(max_size=200), strategies.text(max_size=200).map(
    lambda text: text.encode("utf-8", "surrogatepass"))))  # fmt: skip
def test_any_file_is_refused_by_a_message(tmp_path_factory, content):
    file = tmp_path_factory.getbasetemp() / "params.yaml"
    file.write_bytes(content)
    try:
        params.load(file)
    except SettingsError as fault:
        assert str(fault).strip()
    else:
        raise AssertionError("nothing short has all that settings need")


def test_a_tree_that_is_a_file_again_is_read_the_same():
    text = io.StringIO()
    YAML(typ="safe").dump(CONTENT, text)
    assert params.parse(YAML(typ="safe").load(text.getvalue())) == params.parse(CONTENT)
