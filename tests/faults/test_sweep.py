"""The parallel sweep of stages/README.md, as it stands there, with four runs."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from conftest import ROOT
from small import environment, repro, study

pytestmark = pytest.mark.faults


def recipe() -> tuple[str, list[str]]:
    """The commands, and the values that they sweep through."""
    match = re.search(
        r"```sh\n(printf .*?xargs.*?)```", (ROOT / "stages/README.md").read_text(), re.S
    )
    assert match
    return match[1], re.findall(r"0\.\d+", match[1])


def test_four_runs_side_by_side(tmp_path):
    commands, values = recipe()
    assert len(values) == 4
    folder = study(tmp_path / "study")
    (folder / ".dvc/config.local").unlink()  # with git, here
    yaml = YAML()
    content = yaml.load(folder / "params.yaml")
    cell = content["cells"]["tiny_fgsm"] | {"override": {}, "evaluation": "tiny"}
    content["cells"] = {"tiny_fgsm": cell}
    content["studies"] = {"tiny": content["studies"]["tiny"] | {"headline": "tiny_fgsm"}}
    yaml.dump(content, folder / "params.yaml")

    def run(*words: str) -> str:
        bin_ = Path(sys.executable).parent
        named = {f"GIT_{who}_{what}": "someone@example.org" for who in ("AUTHOR", "COMMITTER")
                 for what in ("NAME", "EMAIL")}  # fmt: skip
        own = environment(PATH=f"{bin_}:/usr/local/bin:/usr/bin:/bin", OMP_NUM_THREADS="1", **named)
        answer = subprocess.run(words, cwd=folder, env=own, capture_output=True, text=True)
        assert answer.returncode == 0, answer.stdout + answer.stderr
        return answer.stdout

    run("git", "init", "--quiet")
    run("git", "add", ".")
    run("git", "commit", "--quiet", "-m", "settings")
    repro(folder)
    run("git", "add", ".")
    run("git", "commit", "--quiet", "-m", "results")
    before = (folder / "dvc.lock").read_text()
    run("sh", "-c", commands)
    shown = json.loads(run("dvc", "exp", "show", "--json"))
    assert sorted(run("dvc", "exp", "list", "--name-only").split()) == [f"eps-{v}" for v in values]
    by_name = {}
    for row in shown[-1]["experiments"]:
        revision = row["revs"][-1]["data"]
        name = row["name"]
        metrics = revision["metrics"]["data/reports/tiny/metrics.json"]["data"]
        by_name[name] = json.dumps(metrics, sort_keys=True)
    assert len(set(by_name.values())) == 4
    assert (folder / "dvc.lock").read_text() == before
    assert not run("git", "status", "--porcelain")
