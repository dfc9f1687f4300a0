"""torchvision, also where its compiled extension does not fit the installed torch.

The registry's torchvision wheel is built against a CUDA torch. With a CPU build of torch its
extension cannot be loaded, and `import torchvision` fails with `operator torchvision::nms does not
exist`. Only then are the missing operators declared here, without an implementation: camdrift calls
none of them, and any other caller gets torch's own "no kernel" error.

torchvision 0.28 imports torch's compiler, which takes as long as torch itself, and asks it for a
function that `roi_align` alone calls. Here that function loads the compiler when it is called.

Its datasets unpack the archives that they download. Before Python 3.14 a tar archive could write
anywhere; here it can write only to the folder in which it is unpacked, as zip archives always can.
"""

import contextlib
import sys
import tarfile
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

_OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


def _extension_loads() -> bool:
    spec = find_spec("torchvision")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("torchvision is not installed; run `make setup`")
    try:
        for library in sorted(Path(spec.origin).parent.glob("_C*")):
            torch.ops.load_library(str(library))
    except OSError:
        return False
    return True


class _Deferred(ModuleType):
    """Stands for a module whose functions can be imported, but load it only when called."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)

        def call(*args: Any, **kwargs: Any) -> Any:
            _restore()
            return getattr(import_module(self.__name__), name)(*args, **kwargs)

        return call


_COMPILER = ("torch._dynamo", "torch._dynamo.utils")


def _restore() -> None:
    """Lets the compiler be imported again."""
    for name in _COMPILER:
        if isinstance(sys.modules.get(name), _Deferred):
            del sys.modules[name]


@contextlib.contextmanager
def _without_compiler() -> Iterator[None]:
    """Lets modules import functions of torch's compiler without loading it."""
    if _COMPILER[0] not in sys.modules:
        sys.modules.update({name: _Deferred(name) for name in _COMPILER})
    try:
        yield
    finally:
        _restore()


if not _extension_loads():
    # Kept for the life of the process: the declarations vanish with the Library object.
    _library = torch.library.Library("torchvision", "DEF")
    for _operator in _OPERATORS:
        _library.define(_operator)

if hasattr(tarfile, "data_filter"):  # Python 3.11.4
    tarfile.TarFile.extraction_filter = staticmethod(tarfile.data_filter)

with _without_compiler():
    import torchvision
    import torchvision.datasets
    import torchvision.models

__all__ = ["torchvision"]
