"""Training gives the same weights whatever the processor, its cores and the environment."""

import json
import os
import shutil
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

import checksums
from camdrift.pipeline import children, processor

ROOT = Path(__file__).resolve().parent.parent


def run(*command, **environment):
    paths = os.pathsep.join([str(ROOT / "lib"), str(ROOT / "tests")])
    environment = os.environ | {"PYTHONPATH": paths} | environment
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def printed(part, **environment):
    answer = run(sys.executable, "-P", checksums.__file__, part, **environment)
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout.splitlines()[-1])


@pytest.fixture
def stages(tmp_path):
    """A folder of stages of which `checksums` is one."""
    folder = tmp_path / "stages"
    folder.mkdir()
    for name in ("run", "processor"):
        shutil.copy(ROOT / "stages" / name, folder)
    for part in ("maps", "attacks", "statistics"):
        (folder / f"{part}.py").symlink_to(checksums.__file__)
    return folder


def test_checksums_are_those_that_this_processor_is_known_to_give(stages):
    """On a processor that is not listed, the warning is the row to add to tests/checksums.json."""
    known = json.loads(checksums.COMMITTED.read_text())
    here = checksums.here()
    got = {"weights": printed("weights", OMP_NUM_THREADS="1"), "any": {}}
    for part in known["any"]:
        names = {"CAMDRIFT_PROCESSOR": "", "OMP_NUM_THREADS": "", "CAMDRIFT_PYTHON": sys.executable}
        answer = run("sh", str(stages / "run"), part, **names)
        assert answer.returncode == 0, answer.stderr
        got["any"][part] = json.loads(answer.stdout.splitlines()[-1])
    own = printed("maps", OMP_NUM_THREADS="1")
    rows = [row for row in known["processors"] if {key: row[key] for key in here} == here]
    if not rows:
        same = all(got[part] == known[part] for part in got)
        row = json.dumps(here | {"maps": own})
        verdict = f"as on others, {row}" if same else f"NOT as on others, {got}, {row}"
        warnings.warn(f"new processor, {verdict}", stacklevel=1)
        return
    assert got == {part: known[part] for part in got}
    assert own | rows[0]["maps"] == own


@pytest.mark.parametrize("value", ["all", "ANY"])
def test_other_processors_are_refused(stages, value):
    answer = run("sh", str(stages / "run"), "maps", CAMDRIFT_PROCESSOR=value)
    assert answer.returncode == 1
    assert f"wanted 'own', or on x86-64 'any', got '{value}'" in answer.stderr


def test_the_limits_of_training_stand_for_all_stages():
    text = (ROOT / "stages" / "processor").read_text()
    for name, value in processor.LIMITS.items():
        assert f"{name}={value}" in text


def test_neither_threads_nor_cores_of_the_environment_change_the_weights():
    weights = json.loads(checksums.COMMITTED.read_text())["weights"]
    usual = printed("weights")
    assert printed("weights", OMP_NUM_THREADS="3", MKL_NUM_THREADS="1", MKL_CBWR="AUTO") == usual
    assert list(usual) == list(weights)


def _threads() -> tuple[int, str, str | None]:
    capability = torch.backends.cpu.get_cpu_capability()
    return torch.get_num_threads(), capability, os.environ.get("DNNL_MAX_CPU_ISA")


def _die() -> None:
    os._exit(3)


def _kill_itself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_that_has_computed_has_another_one_train():
    torch.rand(3).exp()
    before = dict(os.environ)
    threads, capability, instructions = processor.alike(3, _threads)
    assert (threads, instructions) == (3, "AVX2")
    assert not capability.startswith("AVX512")
    assert dict(os.environ) == before
    assert processor.alike(None, _threads) == _threads()


@pytest.mark.parametrize("limits", [{}, processor.LIMITS])
def test_a_limited_process_trains_itself(limits):
    """By the environment, or by itself."""
    program = (
        "import os, torch\n"
        "from camdrift.pipeline import processor\n"
        f"{'torch.rand(3).exp()' if limits else 'processor.limit(1)'}\n"
        "here = lambda: (os.getpid(), torch.get_num_threads())\n"
        "assert processor.alike(3, here) == (os.getpid(), 3)\n"
        "assert torch.get_num_threads() == 1\n"
    )
    answer = run(sys.executable, "-c", program, OMP_NUM_THREADS="1", **limits)
    assert answer.returncode == 0, answer.stderr


@pytest.mark.parametrize(
    ("end", "told"),
    [(_die, "lost, with exit status 3; run"), (_kill_itself, "by SIGKILL, perhaps for memory")],
)
def test_the_end_of_the_process_that_trains_is_told(end, told):
    with pytest.raises(children.LostError, match=told):
        processor.alike(2, end)


@pytest.mark.parametrize(
    ("codes", "told"),
    [
        ([-11, 0, -9, -15], "by SIGKILL, perhaps for memory"),
        ([-15, -11], "by SIGSEGV"),
        ([-35], "by signal 35"),  # a real-time signal has no name
        ([3, None], "with exit status 3"),
        ([None], "with exit status unknown"),
    ],
)
def test_exit_codes_in_words(codes, told):
    assert children._in_words(codes) == told


def test_a_process_with_wider_vectors_in_use_is_not_limited(monkeypatch):
    if not torch.backends.cpu.get_cpu_capability().startswith("AVX512"):
        pytest.skip("this processor has no AVX-512")
    for name, value in processor.LIMITS.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RuntimeError, match="has computed before"):
        processor.limit(torch.get_num_threads())
