"""Files from elsewhere run no code, write nowhere else, and are the ones that were promised."""

import ast
import hashlib
import io
import pickle
import shutil
import subprocess
import sys
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from ruamel.yaml import YAML
from safetensors.torch import save
from torch import nn

from camdrift import storage
from camdrift.datasets import images
from camdrift.models import architectures, loading, weights
from camdrift.pipeline.vision import torchvision
from camdrift.settings import ModelSettings, SettingsError, params
from camdrift.storage import Signs, files
from conftest import ROOT, inside

PLAN = {
    "set": "s", "architecture": "vgg11", "width": 1.0, "head": "torchvision", "classes": 3,
    "size": None, "mean": [0.5] * 3, "std": [0.25] * 3, "new_head": False, "training": None,
}  # fmt: skip


class Trap:
    """A pickle of it makes a file where it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.fixture
def sprung(tmp_path):
    return tmp_path / "sprung"


def test_the_trap_works(sprung):
    pickle.loads(pickle.dumps(Trap(sprung)))
    assert sprung.exists()


# Modules and functions that run what they read, and the keyword that makes a function safe.
FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
FORBIDDEN = {"eval", "exec", "compile", "os.system", "os.popen"}
FORBIDDEN_METHODS = {"read_pickle", "to_pickle", "extractall", "unpack_archive", "load_module"}
SAFE_WITH = {
    "np.load": ("allow_pickle", False),
    "np.save": ("allow_pickle", False),
    "torch.load": ("weights_only", True),
    "YAML": ("typ", "safe"),
}


def faults_of(source: str) -> list[str]:
    """The calls of a source that could run the content of a file, or a shell."""
    faults = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names]
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            faults += [name for name in names if name.partition(".")[0] in FORBIDDEN_MODULES]
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        keywords = {
            k.arg: k.value.value for k in node.keywords if isinstance(k.value, ast.Constant)
        }
        keyword, value = SAFE_WITH.get(name, ("", None))
        forbidden = name in FORBIDDEN or name.rpartition(".")[2] in FORBIDDEN_METHODS
        if forbidden or keywords.get("shell") or keywords.get(keyword) != value:
            faults.append(name)
    return faults


@pytest.mark.parametrize(
    "source",
    [
        "import joblib", "from pickle import loads", "np.load(path)", "exec(text)", "eval(text)",
        "np.load(path, allow_pickle=True)", "torch.load(path)", "pd.read_pickle(path)",
        "YAML().load(text)", "os.system(text)", "subprocess.run(text, shell=True)",
        "archive.extractall(path)",
    ],
)  # fmt: skip
def test_what_would_run_what_is_read_is_found(source):
    assert faults_of(source)


def test_no_code_of_the_project_runs_what_it_reads():
    files = [f for part in ("lib", "stages", "dashboard") for f in (ROOT / part).rglob("*.py")]
    assert len(files) > 90
    by_file = {f.relative_to(ROOT).as_posix(): faults_of(f.read_text()) for f in files}
    # Imported for the name of an error alone: torch's own reader of tensors raises it.
    by_file["lib/camdrift/models/weights.py"].remove("pickle")
    assert {name: faults for name, faults in by_file.items() if faults} == {}


def test_weights_uses_of_pickle_an_error_alone():
    tree = ast.parse((ROOT / "lib/camdrift/models/weights.py").read_text())
    used = {ast.unparse(n) for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    assert {name for name in used if name.startswith("pickle.")} == {"pickle.UnpicklingError"}


def test_an_array_of_objects_is_not_read(tmp_path, sprung):
    storage.write(tmp_path, Signs(np.zeros(1, dtype=np.int8), pd.DataFrame({"image": [0]})))
    np.save(tmp_path / "sign.npy", np.array([Trap(sprung)], dtype=object), allow_pickle=True)
    # Whoever can write the array can write its checksum.
    files.sign(tmp_path, tmp_path.as_posix(), ["sign.npy", "images.parquet"])
    with pytest.raises(ValueError, match=r"pickle|object"):
        storage.read(Signs, tmp_path)
    assert not sprung.exists()


def settings(**changed) -> ModelSettings:
    return ModelSettings.model_validate(PLAN | {"sha256": None, **changed})


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("suffix", [".pt", ".pth"])
@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_among_weights_is_not_run(tmp_path, sprung, suffix, legacy):
    path = tmp_path / f"w{suffix}"
    torch.save(
        {"w": torch.zeros(1), "x": Trap(sprung)}, path, _use_new_zipfile_serialization=not legacy
    )
    with pytest.raises(architectures.RefusedError, match="could run any code"):
        weights.read(settings(weights=str(path), sha256=digest(path.read_bytes())))
    assert not sprung.exists()


class Server(HTTPServer):
    """Files by name, and what was asked for; one whose name begins with 'half' breaks off."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.files, self.asked = {}, []
        self.url = f"http://127.0.0.1:{self.server_port}"


class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        name = self.path.lstrip("/").partition("?")[0]
        self.server.asked.append(name)
        if name.startswith("moved"):
            self.send_response(302)
            self.send_header("Location", name.removeprefix("moved-"))
            self.end_headers()
            return
        content = self.server.files.get(name)
        self.send_response(200 if content is not None else 404)
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        content = content or b""
        self.wfile.write(content[: len(content) // 2] if name.startswith("half") else content)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(weights, "SECONDS", 10)
    instance = Server()
    thread = threading.Thread(target=instance.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield instance
    instance.shutdown()
    thread.join()
    instance.server_close()


CONTENT = save({"w": torch.arange(50_000).float()})


def downloads(tmp_path):
    """Every file below torch's folder of downloads."""
    return sorted(path.name for path in (tmp_path / "torch").rglob("*") if path.is_file())


@pytest.mark.parametrize(
    "name", ["w.safetensors", "w.safetensors?download=1", "moved-w.safetensors"]
)
def test_weights_of_a_url_are_loaded_once(server, tmp_path, name):
    server.files["w.safetensors"] = CONTENT
    model_settings = settings(weights=f"{server.url}/{name}", sha256=digest(CONTENT))
    tensors = weights.read(model_settings)
    assert torch.equal(tensors["w"], torch.arange(50_000).float())
    requests = list(server.asked)
    assert torch.equal(weights.read(model_settings)["w"], tensors["w"])
    assert server.asked == requests
    assert downloads(tmp_path) == [f"camdrift-{digest(CONTENT)}.safetensors"]


def test_weights_of_a_url_with_another_hash_are_not_kept(server, tmp_path):
    server.files["w.safetensors"] = CONTENT[:-4] + b"\0\0\0\1"
    model_settings = settings(weights=f"{server.url}/w.safetensors", sha256=digest(CONTENT))
    with pytest.raises(
        architectures.RefusedError, match=f"wanted {digest(CONTENT)}; nothing was kept"
    ):
        weights.read(model_settings)
    assert downloads(tmp_path) == []


def test_a_download_that_breaks_off_leaves_nothing_and_can_be_repeated(server, tmp_path):
    server.files["half.safetensors"] = CONTENT
    model_settings = settings(weights=f"{server.url}/half.safetensors", sha256=digest(CONTENT))
    with pytest.raises(
        architectures.RefusedError, match=r"broke off after 100,0\d\d of 200,0\d\d bytes"
    ):
        weights.read(model_settings)
    assert downloads(tmp_path) == []
    server.files["w.safetensors"] = CONTENT
    again = model_settings.model_copy(update={"weights": f"{server.url}/w.safetensors"})
    assert len(weights.read(again)["w"]) == 50_000


def test_a_download_that_is_stopped_leaves_nothing(server, tmp_path, monkeypatch):
    server.files["w.safetensors"] = CONTENT

    def stop(*_, **__):
        raise KeyboardInterrupt

    model_settings = settings(weights=f"{server.url}/w.safetensors", sha256=digest(CONTENT))
    monkeypatch.setattr(weights.tqdm, "update", stop)
    with pytest.raises(KeyboardInterrupt):
        weights.read(model_settings)
    assert downloads(tmp_path) == []


def test_a_download_has_an_end(server, tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "MOST_BYTES", 1000)
    server.files["w.safetensors"] = CONTENT
    with pytest.raises(architectures.RefusedError, match="larger than 1,000 bytes"):
        weights.read(settings(weights=f"{server.url}/w.safetensors", sha256=digest(CONTENT)))
    assert downloads(tmp_path) == []


@pytest.mark.parametrize(
    ("url", "message"),
    [("{}/none.pt", "404"), ("http://127.0.0.1:1/w.pt", "refused"), ("http:///w.pt", "host")],
)
def test_a_url_that_does_not_answer_is_a_message(server, tmp_path, url, message):
    model_settings = settings(weights=url.format(server.url), sha256="0" * 64)
    with pytest.raises(architectures.RefusedError, match=f"cannot be downloaded: .*{message}"):
        weights.read(model_settings)
    assert downloads(tmp_path) == []


def test_a_spoilt_download_is_replaced(server, tmp_path):
    server.files["w.safetensors"] = CONTENT
    model_settings = settings(weights=f"{server.url}/w.safetensors", sha256=digest(CONTENT))
    weights.read(model_settings)
    path = next((tmp_path / "torch").rglob("camdrift-*"))
    path.write_bytes(CONTENT[:1000])
    assert len(weights.read(model_settings)["w"]) == 50_000
    assert path.read_bytes() == CONTENT


def named(monkeypatch, url):
    """torchvision's weights KNOWN, at a URL."""
    known = {"KNOWN": SimpleNamespace(url=url)}
    monkeypatch.setattr(torchvision.models, "get_model_weights", lambda _: known)


def test_torchvisions_weights_are_those_that_their_name_says(server, tmp_path, monkeypatch):
    name = f"vgg11-{digest(CONTENT)[:8]}.safetensors"
    named(monkeypatch, f"{server.url}/{name}")
    server.files[name] = CONTENT[:-4] + b"\0\0\0\1"
    with pytest.raises(
        architectures.RefusedError, match=f"wanted {digest(CONTENT)[:8]}; nothing was"
    ):
        weights.read(settings(weights="KNOWN"))
    assert downloads(tmp_path) == []
    server.files[name] = CONTENT
    assert len(weights.read(settings(weights="KNOWN"))["w"]) == 50_000
    assert downloads(tmp_path) == [name]
    # One that was there before is held to its name, too; torch would take it as it is.
    (tmp_path / "torch/hub/checkpoints" / name).write_bytes(b"other")
    assert len(weights.read(settings(weights="KNOWN"))["w"]) == 50_000


def test_torchvisions_weights_are_held_to_the_whole_hash_where_it_is_given(server, monkeypatch):
    name = f"vgg11-{digest(CONTENT)[:8]}.safetensors"
    named(monkeypatch, f"{server.url}/{name}")
    server.files[name] = CONTENT
    other = digest(CONTENT)[:8] + "0" * 56
    with pytest.raises(architectures.RefusedError, match=f"wanted {other}"):
        weights.read(settings(weights="KNOWN", sha256=other))


def test_torchvisions_weights_without_a_hash_want_one(server, monkeypatch):
    named(monkeypatch, f"{server.url}/vgg11.pth")
    with pytest.raises(architectures.RefusedError, match="wanted `sha256:`"):
        weights.read(settings(weights="KNOWN"))
    assert server.asked == []


def test_torchvisions_weights_run_nothing(server, sprung, monkeypatch):
    buffer = io.BytesIO()
    torch.save({"w": Trap(sprung)}, buffer)
    name = f"vgg11-{digest(buffer.getvalue())[:8]}.pth"
    server.files[name] = buffer.getvalue()
    named(monkeypatch, f"{server.url}/{name}")
    with pytest.raises(architectures.RefusedError, match="could run any code"):
        weights.read(settings(weights="KNOWN"))
    assert not sprung.exists()


def test_every_weights_of_torchvision_names_its_hash():
    """Else they would be refused."""
    kinds = [torchvision.models.get_model_weights(n) for n in torchvision.models.list_models()]
    urls = [each.url for kind in kinds for each in kind]
    assert len(urls) > 100
    assert [u for u in urls if not weights.NAMED.search(u.rpartition("/")[2])] == []


def test_cifar_unpickles_nothing_that_is_not_its_own(tmp_path, sprung):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"]:
        (folder / name).write_bytes(pickle.dumps(Trap(sprung)))
    with pytest.raises(SettingsError, match="Dataset not found or corrupted"):
        images.torchvision_set(
            dataset="CIFAR10", arguments={"root": str(tmp_path), "download": False}, seed=1,
            size=16, resize=20, shares={"train": 0.5, "validation": 0.0, "test": 0.5},
            limits={"train": 9, "validation": 9, "test": 9}, fold=0, preprocessing=None,
            licence="own",
        )  # fmt: skip
    assert not sprung.exists()


def tar(path, name, content=b"", link=None):
    with tarfile.open(path, "w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        if link:
            entry.type, entry.linkname = tarfile.SYMTYPE, link
        archive.addfile(entry, io.BytesIO(content))


@pytest.mark.skipif(not hasattr(tarfile, "data_filter"), reason="Python before 3.11.4")
@pytest.mark.parametrize("name", ["../outside", "inner/../../outside", "link"])
def test_a_tar_of_torchvisions_writes_nowhere_else(tmp_path, name):
    place = tmp_path / "place"
    place.mkdir()
    tar(tmp_path / "a.tar", name, b"x", "../outside" if name == "link" else None)
    with pytest.raises(tarfile.FilterError):
        torchvision.datasets.utils.extract_archive(tmp_path / "a.tar", place)
    assert not (tmp_path / "outside").exists()
    assert list(place.rglob("*link*")) == []


@pytest.mark.skipif(not hasattr(tarfile, "data_filter"), reason="Python before 3.11.4")
def test_an_absolute_name_in_a_tar_lands_inside_or_nowhere(tmp_path):
    place = tmp_path / "place"
    place.mkdir()
    tar(tmp_path / "a.tar", str(tmp_path / "outside"), b"x")
    torchvision.datasets.utils.extract_archive(tmp_path / "a.tar", place)
    assert not (tmp_path / "outside").exists()


def test_a_tar_that_is_as_it_should_be_is_unpacked(tmp_path):
    tar(tmp_path / "a.tar", "inner/file", b"x")
    torchvision.datasets.utils.extract_archive(tmp_path / "a.tar", tmp_path / "place")
    assert (tmp_path / "place/inner/file").read_bytes() == b"x"


def test_a_zip_of_torchvisions_writes_nowhere_else(tmp_path):
    place = tmp_path / "deep" / "place"
    place.mkdir(parents=True)
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16  # a symbolic link, for an unpacker that makes them
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("../../outside", "x")
        archive.writestr(str(tmp_path / "absolute"), "x")
        archive.writestr(link, "../../outside")
    torchvision.datasets.utils.extract_archive(tmp_path / "a.zip", place)
    assert not (tmp_path / "outside").exists()
    assert not (tmp_path / "absolute").exists()
    assert not any(path.is_symlink() for path in place.rglob("*"))


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A folder with params.yaml, and a module beside it that tells when it is imported."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    (tmp_path / "my_module.py").write_text(
        "from pathlib import Path\n"
        "Path('imported').touch()\n"
        "from camdrift.pipeline.vision import torchvision\n"
        "def network(classes):\n"
        "    return torchvision.models.squeezenet1_1(num_classes=classes)\n"
        "def align(picture):\n"
        "    return picture\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_module", raising=False)
    with inside(tmp_path):
        yield tmp_path


def named_in_params(study, **changed):
    yaml = YAML()
    content = yaml.load(study / "params.yaml")
    model = next(iter(content["models"].values()))
    model.update(changed)
    yaml.dump(content, study / "params.yaml")
    return next(iter(content["models"]))


def test_check_imports_nothing_of_the_users(study):
    named_in_params(study, architecture="my_module:network", head="torchvision", width=1.0)
    code = f"""
import sys
sys.path[:0] = [{str(study)!r}, {str(ROOT / "lib")!r}]
from camdrift.settings import params
assert params.load().models["vgg16_quarter"].architecture == "my_module:network"
assert "my_module" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=study)
    assert not (study / "imported").exists()


def test_data_does_not_say_which_code_runs(study):
    """Weights may be pulled from a store of others: what they name is not imported."""
    facts = {"architecture": "my_module:network", "width": 1.0, "head": "torchvision",
             "classes": 3, "size": 32, "mean": [0.5] * 3, "std": [0.25] * 3}  # fmt: skip
    network: nn.Module = torchvision.models.squeezenet1_1(num_classes=3)
    artefact = storage.Weights(network.state_dict(), facts, loading.pd.DataFrame({"epoch": [1]}))
    storage.write(storage.model_folder("theirs"), artefact)
    with pytest.raises(architectures.RefusedError, match="no model in params.yaml names it"):
        loading.load("theirs", micro_batch=1)
    assert not (study / "imported").exists()
    named_in_params(study, architecture="my_module:network")
    assert loading.load("theirs", micro_batch=1)(torch.rand(1, 3, 32, 32)).shape == (1, 3)
    assert (study / "imported").exists()


def test_what_is_imported_is_a_dotted_name(study):
    content = YAML(typ="safe").load(study / "params.yaml")
    content["sets"]["photos"]["preprocessing"] = {"align": "/tmp/evil.py:run", "crop": 1.0}
    with pytest.raises(
        SettingsError, match=r"sets.photos.preprocessing.align: wanted a function as"
    ):
        params.parse(content)
