"""torchvision, also where its compiled extension does not fit the installed torch.

The registry's torchvision wheel is built against a CUDA torch. With a CPU build of torch its
extension cannot be loaded, and `import torchvision` fails with `operator torchvision::nms does not
exist`. Only then are the missing operators declared here, without an implementation: camdrift calls
none of them, and any other caller gets torch's own "no kernel" error.

Its datasets unpack the archives that they download. Before Python 3.14 a tar archive could write
anywhere; here it can write only to the folder in which it is unpacked, as zip archives always can.
"""

import tarfile
from importlib.util import find_spec
from pathlib import Path

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


if not _extension_loads():
    # Kept for the life of the process: the declarations vanish with the Library object.
    _library = torch.library.Library("torchvision", "DEF")
    for _operator in _OPERATORS:
        _library.define(_operator)

if hasattr(tarfile, "data_filter"):  # Python 3.11.4
    tarfile.TarFile.extraction_filter = staticmethod(tarfile.data_filter)

import torchvision  # noqa: E402
import torchvision.datasets  # noqa: E402
import torchvision.models  # noqa: E402

__all__ = ["torchvision"]
