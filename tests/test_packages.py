"""A package of the library imports only from those before it in its order."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from camdrift.ops.packages import ORDER
from conftest import ROOT

LIBRARY = ROOT / "lib" / "camdrift"
MODULES = sorted(LIBRARY.rglob("*.py"))


def name_of(file: Path) -> str:
    parts = file.relative_to(LIBRARY.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


KNOWN = {name_of(file) for file in MODULES}


def imports(file: Path) -> set[str]:
    """The modules of the library that a file imports, wherever in it."""
    modules = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "camdrift":
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            modules |= {name if name in KNOWN else node.module for name in names}
    return modules - {"camdrift"}


def test_every_package_has_a_place_in_the_order():
    packages = {path.name for path in LIBRARY.iterdir() if path.is_dir() and path.name[0] != "_"}
    assert packages == set(ORDER)
    assert {path.name for path in LIBRARY.glob("*.py")} == {"__init__.py"}


@pytest.mark.parametrize("file", MODULES, ids=name_of)
def test_a_package_imports_only_from_those_before_it(file):
    if file.parent == LIBRARY:
        return
    own = ORDER.index(file.relative_to(LIBRARY).parts[0])
    for name in imports(file):
        assert ORDER.index(name.split(".")[1]) <= own, f"{name_of(file)} imports {name}"


def test_a_paper_imports_no_other_but_the_first():
    """The evidence of renkhoff2022, whose experiment the others repeat, is read by all."""
    papers = [path for path in (LIBRARY / "papers").iterdir() if (path / "__init__.py").exists()]
    assert len(papers) == 5
    for paper in papers:
        for file in paper.glob("*.py"):
            others = {name.split(".")[2] for name in imports(file) if "papers" in name} - {
                paper.name
            }
            assert not {name for name in others if name[-4:].isdigit()} - {"renkhoff2022"}


def test_no_circles():
    """Even within a package: a module that needs another is not needed by it."""
    needs = {name_of(file): imports(file) - {name_of(file)} for file in MODULES}
    # A package's front hands on what its modules define.
    fronts = {name_of(file) for file in MODULES if file.name == "__init__.py"}
    rest = {name: of - fronts for name, of in needs.items() if name not in fronts}
    while ends := {name for name, of in rest.items() if not of & rest.keys()}:
        rest = {name: of for name, of in rest.items() if name not in ends}
    assert not rest


TORCHLESS = """
import importlib, pkgutil, sys
import camdrift.{package} as package
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    if module.name.rpartition(".")[2] not in {left_out}:
        importlib.import_module(module.name)
assert "torch" not in sys.modules
"""


@pytest.mark.parametrize(
    ("package", "left_out"),
    [
        ("settings", set()), ("storage", {"pixels"}), ("analysis", set()),
        ("papers", {"controls", "experiment", "inspection", "attacks", "signatures"}),
    ],
)  # fmt: skip
def test_tables_figures_and_reports_need_no_torch(package, left_out):
    code = TORCHLESS.format(package=package, left_out=left_out or "()")
    subprocess.run([sys.executable, "-c", code], check=True)
