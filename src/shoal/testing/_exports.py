"""Exports compared with the module they come from: to .pt2 and to ONNX, with a free batch size."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from shoal.testing._samples import require_close


def exported(module: nn.Module, x: Tensor) -> torch.export.ExportedProgram:
    """The module as a graph in which the batch may be of any size."""
    return torch.export.export(module, (x,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},), strict=False)


def check_pt2(module: nn.Module, x: Tensor) -> None:
    """Exported, saved to a file and loaded, it gives what the module gives, at twice the batch too."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "module.pt2"
        with warnings.catch_warnings():
            # weights laid channels last are no "complete tensor" to torch's packing; they are saved whole all the same
            warnings.filterwarnings("ignore", message="No complete tensor found")
            torch.export.save(exported(module, x), path)
        again = torch.export.load(path).module()
    for each in (x, torch.cat((x, -x))):
        require_close(again(each), module(each), f"the .pt2 at a batch of {len(each)}", 1e-5)


def check_onnx(module: nn.Module, x: Tensor) -> None:
    """Exported to ONNX, it gives in onnxruntime what the module gives, at twice the batch too."""
    import onnxruntime

    with warnings.catch_warnings():
        # the exporter warns of its own deprecated internals; nothing that a module could mend
        warnings.simplefilter("ignore")
        program = torch.onnx.export(exported(module, x), dynamo=True, verbose=False)
    assert program is not None
    model = program.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    for each in (x, torch.cat((x, -x))):
        (found,) = session.run(None, {session.get_inputs()[0].name: each.numpy()})
        require_close(torch.from_numpy(found), module(each), f"the ONNX at a batch of {len(each)}", 1e-4)
