"""Weights: read from a file, from a URL or from torchvision, verified, nothing but tensors."""

import hashlib
import pickle
import re
from collections.abc import Collection, Mapping
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import torch
from torch import Tensor
from tqdm import tqdm

from camdrift.models import architectures, fitting
from camdrift.models.architectures import RefusedError
from camdrift.settings import ModelSettings
from camdrift.storage import files

MOST_BYTES = 8 * 2**30  # of a download; torchvision's largest weights have 2.6 GB
NAMED = re.compile(r"[-_]([a-f0-9]{8,})\.")  # a hash in the name of torchvision's file
SECONDS = 60  # without a byte, after which a download is abandoned
# Keys under which checkpoints hold a state dict, beside epochs, optimisers and the like.
NESTED = ("state_dict", "model_state_dict", "model", "net")


def read(settings: ModelSettings, own: Collection[str] = ()) -> dict[str, Tensor]:
    """Returns the state dict that a model's settings name, as float32.

    They name the user's own file, a URL, or torchvision's weights; downloads of the latter two are
    kept in torch's folder (`TORCH_HOME`). A file's sha256 must equal that in the settings, if it
    is there, or, for torchvision's weights, begin with the digits in the file's name.

    Args:
        settings: of the model.
        own: the names of the network's own tensors, which tell a wrapper's prefix, see
            `fitting.bare`.

    Raises:
        RefusedError: the file is not there, cannot be downloaded, has another sha256, cannot be
            read, or holds anything but finite tensors.
    """
    path = _verified(settings)
    auxiliary = architectures.AUXILIARY.get(settings.architecture, ())
    state = {
        key: tensor.float() if tensor.is_floating_point() else tensor
        for key, tensor in fitting.bare(_tensors(path), own).items()
        if not key.startswith(tuple(auxiliary))
    }
    refuse_infinite(state, str(settings.weights))
    return state


def refuse_infinite(state: Mapping[str, Tensor], place: str) -> None:
    """Raises RefusedError where a tensor of a state dict holds NaN or infinity in float32."""
    names = [name for name, tensor in state.items() if not tensor.isfinite().all()]
    if names:
        more = f", as have {len(names) - 1} more tensors" if len(names) > 1 else ""
        first = state[names[0]]
        raise RefusedError(
            f"{place}: '{names[0]}' has {int((~first.isfinite()).sum())} of {first.numel()} values "
            f"that are NaN or infinite as float32{more}; wanted finite weights"
        )


def checksum(settings: ModelSettings) -> str:
    """Returns the sha256 of the user's own file.

    Raises:
        RefusedError: it is not there, or has another sha256 than the settings say.
    """
    path = Path(str(settings.weights))
    if not path.is_file():
        raise _unknown(settings)
    try:
        digest = files.sha256(path)
    except OSError as fault:
        raise RefusedError(f"{path} cannot be read: {fault.strerror}") from fault
    if settings.sha256 not in (None, digest):
        raise RefusedError(f"{path} has sha256 {digest}, params.yaml says {settings.sha256}")
    return digest


def file(settings: ModelSettings) -> Path:
    """Returns the file of a model's weights, which is not there if it was not yet downloaded.

    Raises:
        RefusedError: torchvision has no weights of that name.
    """
    if settings.is_file:
        return Path(str(settings.weights))
    name = PurePosixPath(urlsplit(url(settings)).path).name
    if settings.is_url:
        name = f"camdrift-{settings.sha256}{settings.suffix}"
    return Path(torch.hub.get_dir()) / "checkpoints" / name


def url(settings: ModelSettings) -> str:
    """Returns the URL of weights that are downloaded; raises as `torchvisions` does."""
    return str(settings.weights) if settings.is_url else str(torchvisions(settings).url)


def torchvisions(settings: ModelSettings) -> Any:
    """Returns the member of torchvision's `WeightsEnum` that a model's weights name.

    Raises:
        RefusedError: torchvision has no weights of that name.
    """
    try:
        return _kinds(settings.architecture)[str(settings.weights)]
    except KeyError as fault:
        raise _unknown(settings) from fault


def _kinds(architecture: str) -> Any:
    """Returns torchvision's weights of an architecture, none where it is not its own."""
    from camdrift.pipeline.vision import torchvision

    try:
        return torchvision.models.get_model_weights(architecture)
    except ValueError:
        return {}


def _unknown(settings: ModelSettings) -> RefusedError:
    """Returns the refusal of weights that are neither a file, a URL nor torchvision's."""
    names = [kind.name for kind in _kinds(settings.architecture)]
    kinds = ", ".join(names) or "it has none"
    place = f"no file '{settings.weights}'" + ("" if settings.is_file else ", and no such name")
    return RefusedError(
        "wanted a file that torch or safetensors wrote, with any suffix; the URL of one, from "
        "https://; or a name of torchvision's weights of "
        f"{settings.architecture} ({kinds}); got {place}"
    )


def _verified(settings: ModelSettings) -> Path:
    """Returns the file of some weights, verified."""
    path = file(settings)
    if settings.is_file:
        checksum(settings)
        return path
    digits = settings.sha256 or ((match := NAMED.search(path.name)) and match[1])
    if digits is None:
        raise RefusedError(
            f"{url(settings)} does not name its sha256; wanted `sha256:` of the model"
        )
    return _download(url(settings), digits, path)


def _download(url: str, digest: str, path: Path) -> Path:
    """Returns the file of a URL, whose sha256 begins with `digest`; an existing one is reused.

    A new one is written under another name and renamed once it is complete and verified.
    """
    if path.is_file() and files.sha256(path).startswith(digest):
        return path
    checksum, received, length = hashlib.sha256(), 0, None
    try:
        with files.whole(path) as temporary:
            request = Request(url, headers={"User-Agent": "camdrift"})
            with (
                urlopen(request, timeout=SECONDS) as answer,
                temporary.open("wb") as file,
                tqdm(total=answer.length, desc=path.name, unit="B", unit_scale=True) as bar,
            ):
                length = answer.length
                while chunk := answer.read(2**20):
                    received += len(chunk)
                    if received > MOST_BYTES:
                        raise RefusedError(f"{url} is larger than {MOST_BYTES:,} bytes")
                    file.write(chunk)
                    checksum.update(chunk)
                    bar.update(len(chunk))
            if length is not None and received != length:
                raise OSError(f"it broke off after {received:,} of {length:,} bytes")
            if not checksum.hexdigest().startswith(digest):
                raise RefusedError(
                    f"{url} has sha256 {checksum.hexdigest()}, wanted {digest}; nothing was kept"
                )
    except (OSError, HTTPException, ValueError) as fault:  # ValueError: an invalid URL
        raise RefusedError(
            f"{url} cannot be downloaded: {type(fault).__name__}: {fault}; nothing was kept"
        ) from fault
    return path


def _tensors(path: Path) -> dict[str, Tensor]:
    """Returns the tensors of a file by name; of a pickle, only tensors are read.

    Of a checkpoint, the state dict that it holds under a key of `NESTED`.
    """
    with path.open("rb") as opened:
        head = opened.read(9)
    length = int.from_bytes(head[:8], "little")
    if head[8:] == b"{" and length <= path.stat().st_size:  # the header of safetensors is JSON
        state = _safetensors(path)
    elif head.startswith((b"PK", b"\x80")):  # a zip archive, or a pickle as torch wrote before
        state = _unpickle(path)
    else:
        raise RefusedError(
            f"{path} cannot be read as safetensors, nor as what torch.save writes: it begins with "
            f"{head!r}{_other(head)}; wanted a file of weights"
        )
    if isinstance(state, Mapping):
        inner = (state[key] for key in NESTED if isinstance(state.get(key), Mapping))
        state = next(inner, state)
    if not isinstance(state, Mapping):
        raise RefusedError(
            f"{path}: wanted a dict of tensors by name, got a {type(state).__name__}"
        )
    for name, tensor in state.items():
        if not isinstance(tensor, Tensor) or not isinstance(name, str):
            raise RefusedError(
                f"{path}: wanted tensors by name alone, got a {type(tensor).__name__} under "
                f"{name!r}; save the network's state_dict() by itself, or under 'state_dict'"
            )
        plain = tensor.layout is torch.strided and tensor.device.type == "cpu"
        plain = plain and not tensor.is_quantized and not tensor.is_complex()
        # A small file may declare a tensor of any size that repeats a few values.
        if not plain or tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise RefusedError(
                f"{path}: wanted dense, real tensors, got {name!r} of {tuple(tensor.shape)}, which "
                "is sparse, quantised, complex, without values, or repeats those that it has"
            )
    return dict(state)


def _other(head: bytes) -> str:
    """Returns the kind of a file that is no weights, if its first bytes tell."""
    if head.startswith(b"version h"):
        return ", as a pointer of Git LFS does (`git lfs pull` fetches the file)"
    if head.lstrip().startswith(b"<"):
        return ", as a web page does"
    return ", it is empty" if not head else ""


def _safetensors(path: Path) -> object:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as fault:
        raise RefusedError(
            f"{path} cannot be read as safetensors, it is damaged or incomplete: {fault}"
        ) from fault


def _unpickle(path: Path) -> object:
    try:
        with path.open("rb") as opened:  # torch would go by the suffix of a path
            return torch.load(opened, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as fault:
        asked = re.search(r"(?:GLOBAL|class|function) `?([\w.]+\.[\w.]+)", str(fault))
        if asked is None:
            raise RefusedError(
                f"{path} is damaged, or holds more than tensors, and loading it could run any code;"
                f" wanted a state dict. {_way_out(path)}"
            ) from fault
        raise RefusedError(
            f"{path} asks for {asked[1]}, wanted tensors alone: loading it could run any code. "
            f"{_way_out(path)}"
        ) from fault
    except Exception as fault:  # torch raises many kinds for a truncated file
        if "TorchScript" in str(fault):
            raise RefusedError(
                f"{path} is a scripted network, wanted its state dict. This writes it:\n"
                "  import torch; from safetensors.torch import save_file\n"
                f"  state = torch.jit.load({str(path)!r}, map_location='cpu').state_dict()\n"
                f"  {_saving(path)}"
            ) from fault
        raise RefusedError(
            f"{path} cannot be read as what torch.save writes ({type(fault).__name__}): it is "
            "damaged or incomplete; wanted a file of weights"
        ) from fault


def _way_out(path: Path) -> str:
    """Returns how to turn a file that torch loads only with its code into safetensors."""
    return (
        "If you trust it, this turns it into safetensors:\n"
        "  import torch; from safetensors.torch import save_file\n"
        f"  state = torch.load({str(path)!r}, map_location='cpu', weights_only=False)\n"
        f"  for key in {NESTED}: state = state.get(key, state) if isinstance(state, dict) else "
        "state\n"
        "  state = state if isinstance(state, dict) else state.state_dict()\n"
        f"  {_saving(path)}"
    )


def _saving(path: Path) -> str:
    place = str(path.with_suffix(".safetensors"))
    return f"save_file({{key: value.clone() for key, value in state.items()}}, {place!r})"
