"""Weights: read from a file, from a URL or from torchvision, verified, nothing but tensors."""

import hashlib
import pickle
import re
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import torch
from torch import Tensor
from tqdm import tqdm

from camdrift.models import architectures
from camdrift.models.architectures import RefusedError
from camdrift.settings import ModelSettings
from camdrift.storage import files

MOST_BYTES = 8 * 2**30  # of a download; torchvision's largest weights have 2.6 GB
NAMED = re.compile(r"[-_]([a-f0-9]{8,})\.")  # a hash in the name of torchvision's file
SECONDS = 60  # without a byte, after which a download is abandoned


def read(settings: ModelSettings) -> dict[str, Tensor]:
    """Returns the state dict that a model's settings name, as float32.

    They name the user's own file, a URL, or torchvision's weights; downloads of the latter two are
    kept in torch's folder (`TORCH_HOME`). A file's sha256 must equal that in the settings or, for
    torchvision's weights, begin with the digits in the file's name.

    Raises:
        RefusedError: the file is not there, cannot be downloaded, has another sha256, cannot be
            read, or holds anything but finite tensors.
    """
    path = _file(settings)
    auxiliary = architectures.AUXILIARY.get(settings.architecture, ())
    state = {
        key: tensor.float() if tensor.is_floating_point() else tensor
        for key, tensor in _tensors(path).items()
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


def _file(settings: ModelSettings) -> Path:
    """Returns the file of some weights, verified."""
    if settings.is_file:
        path = Path(str(settings.weights))
        if not path.is_file():
            raise RefusedError(f"no weights file {path}")
        checksum = files.sha256(path)
        if checksum != settings.sha256:
            raise RefusedError(f"{path} has sha256 {checksum}, params.yaml says {settings.sha256}")
        return path
    if settings.is_url:
        url, digest = str(settings.weights), str(settings.sha256)
        return _download(url, digest, f"camdrift-{digest}{settings.suffix}")
    url = _url_of(settings)
    name = PurePosixPath(urlsplit(url).path).name
    prefix = NAMED.search(name)
    if prefix is None and settings.sha256 is None:
        raise RefusedError(f"{url} does not name its sha256; wanted `sha256:` of the model")
    return _download(url, settings.sha256 or prefix[1], name)  # type: ignore[index]


def _url_of(settings: ModelSettings) -> str:
    from camdrift.pipeline.vision import torchvision

    try:
        return torchvision.models.get_model_weights(settings.architecture)[
            str(settings.weights)
        ].url
    except (ValueError, KeyError) as fault:
        raise RefusedError(
            f"no weights '{settings.weights}': wanted a .safetensors, .pt or .pth file, its URL, "
            f"or the name of torchvision's weights of {settings.architecture}"
        ) from fault


def _download(url: str, digest: str, name: str) -> Path:
    """Returns the file of a URL, whose sha256 begins with `digest`; an existing one is reused.

    A new one is written under another name and renamed once it is complete and verified.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    if path.is_file() and files.sha256(path).startswith(digest):
        return path
    checksum, received, length = hashlib.sha256(), 0, None
    try:
        with files.whole(path) as temporary:
            request = Request(url, headers={"User-Agent": "camdrift"})
            with (
                urlopen(request, timeout=SECONDS) as answer,
                temporary.open("wb") as file,
                tqdm(total=answer.length, desc=name, unit="B", unit_scale=True) as bar,
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
    """Returns the tensors of a file by name; of a pickle, only tensors are read."""
    state = _safetensors(path) if path.suffix == ".safetensors" else _unpickle(path)
    if isinstance(state, Mapping):
        state = state.get("state_dict", state)
    if not isinstance(state, Mapping):
        raise RefusedError(
            f"{path}: wanted a dict of tensors by name, got a {type(state).__name__}"
        )
    for name, tensor in state.items():
        if not isinstance(tensor, Tensor):
            raise RefusedError(
                f"{path}: wanted tensors by name alone, got a {type(tensor).__name__} under "
                f"{name!r}; save the network's state_dict() by itself"
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


def _safetensors(path: Path) -> object:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as fault:
        raise RefusedError(f"{path} cannot be read as safetensors: {fault}") from fault


def _unpickle(path: Path) -> object:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as fault:
        raise RefusedError(
            f"{path} is corrupt, or holds more than tensors, and loading it could run any code. "
            "Save only the state dict, best as .safetensors"
        ) from fault
    except Exception as fault:  # torch raises many kinds for a truncated file
        raise RefusedError(f"{path} cannot be read: {type(fault).__name__}: {fault}") from fault
