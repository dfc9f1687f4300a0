"""torchvision, also where its compiled extension does not fit the installed torch.

The registry's torchvision wheel is built against a CUDA torch. Beside a CPU build of torch its
extension cannot be loaded, and `import torchvision` fails with `operator torchvision::nms does not
exist`. Then, and only then, the missing operators are declared here without an implementation:
camdrift calls none of them, and a caller who does gets torch's own "no kernel" error.

Its datasets unpack the archives that they download. Before Python 3.14 a tar archive could thereby
write anywhere; here it is held to the folder that it is unpacked in (zip archives are anyway).
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
