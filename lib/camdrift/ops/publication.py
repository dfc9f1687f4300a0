"""Publication: results of this machine brought into `data/results`, which is in git.

Stages write to `data/reports`, so that a rebuild leaves the published results as they are, to be
compared with. `make publish` is the maintainer's step between a build and a commit.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

from camdrift import storage
from camdrift.analysis import drawing, results
from camdrift.ops import combination, readme
from camdrift.pipeline import run
from camdrift.settings import Settings, owners, params, presets
from camdrift.settings.studies import OWNERS
from camdrift.storage import files


def publish(plan: Settings, studies: Sequence[str]) -> None:
    """Brings results of studies, and cards of their sets and models, into `data/results`.

    Figures that hold images from elsewhere stay behind: not every licence lets an image be passed
    on. Of the studies in params.yaml, seconds and memory of the stages and their environment go
    beside the results; those of a preset are among its results.

    Raises:
        FileNotFoundError: this machine has no results of a study; the message names the command.
    """
    for name in studies:
        if not storage.is_own(name):
            built = "make repro" if name in plan.studies else "make study NAME=<preset>"
            raise FileNotFoundError(
                f"{storage.results(name, 'settings.json')}: not there; run `{built} STUDY={name}`"
            )
    for name in studies:
        folder = storage.results(name, "")
        there = {file for file in folder.rglob("*.*") if file.is_file()}
        if not _is_bundled(plan, name):
            there = {f for f in there if f.suffix != ".png" or not drawing.holds_images(f)}
        cards = {file for file in _cards(name) if file.exists()}
        for file in sorted(there | cards):
            with files.whole(storage.published(file)) as temporary:
                shutil.copyfile(file, temporary)
        published = {storage.published(file) for file in there}
        for file in storage.published(folder).rglob("*.*"):
            if file.is_file() and file not in published:  # of an earlier revision
                file.unlink()
    if set(studies) & set(plan.studies):
        _publish_run(plan)


def _is_bundled(plan: Settings, study: str) -> bool:
    """Returns whether the images of a study come with packages: all may pass them on."""
    if study not in plan.studies:
        preset = presets.builder(study)
        if preset is None:  # a file of the user's own
            return False
        plan = presets.read(preset).settings
    items = [item for part in OWNERS for item in getattr(plan, part).values()]
    sets = {item.set for item in items if study in owners(item)}
    return all(plan.sets[name].kind in combination.BUNDLED for name in sets)


def _cards(study: str) -> set[Path]:
    """Returns the paths of the datasheets and cards of a study's sets and models."""
    own = results.settings_of(study, storage.results)
    items = [item for part in OWNERS for item in getattr(own, part, {}).values()]
    models = {getattr(item, end, item.model) for item in items for end in ("model", "source")}
    return {storage.set_datasheet(item.set) for item in items} | {
        storage.model_card(name) for name in models
    }


def _publish_run(plan: Settings) -> None:
    keys = {key for part in presets.PARTS for key in getattr(plan, part)}
    runs = run.last_runs(keys)
    if runs is None:
        raise FileNotFoundError(f"no runs in {storage.RUNS}; run `make repro`")
    stages = params.stages()  # those of now: a folder keeps the runs of stages that had other names
    runs["stages"] = [stage for stage in runs["stages"] if stage["stage"] in stages]
    files.write_json(readme.RUN, runs)
