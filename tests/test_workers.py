"""What pytest's workers share: it is built once, and each has a copy of its own."""

import pytest

from conftest import built_once


class Factory:
    """Makes folders as `tmp_path_factory` of one worker does."""

    def __init__(self, base):
        self.base = base

    def getbasetemp(self):
        return self.base

    def mktemp(self, name):
        folder = self.base / name
        folder.mkdir(parents=True)
        return folder


def test_what_is_built_for_all_workers_is_built_once_and_copied(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw0")
    calls = []

    def build(folder):
        assert list(folder.iterdir()) == []
        (folder / "made").write_text("by a worker")
        (folder / "link").symlink_to("made")
        calls.append(folder)

    folders = [built_once(Factory(tmp_path / name), "tiny", build) for name in ("gw0", "gw1")]
    assert len(calls) == 1
    assert folders == [tmp_path / "gw0/tiny", tmp_path / "gw1/tiny"]
    (folders[0] / "made").write_text("changed by a test")
    assert (folders[1] / "made").read_text() == "by a worker"
    assert (folders[0] / "link").read_text() == "changed by a test"


def test_what_a_lost_worker_left_half_built_is_built_anew(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw0")

    def lost(folder):
        (folder / "half").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        built_once(Factory(tmp_path / "gw0"), "tiny", lost)
    built = built_once(Factory(tmp_path / "gw1"), "tiny", lambda folder: (folder / "all").touch())
    assert [path.name for path in built.iterdir()] == ["all"]


def test_one_that_is_alone_builds_for_itself(tmp_path, monkeypatch):
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    folder = built_once(Factory(tmp_path / "own"), "tiny", lambda f: (f / "all").touch())
    assert folder == tmp_path / "own/tiny"
    assert [path.name for path in tmp_path.iterdir()] == ["own"]
