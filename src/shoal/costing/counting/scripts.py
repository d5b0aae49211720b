"""Scripts: what TorchScript runs past torch's dispatcher, where nothing can see it.

Most of a scripted module's operations are seen like any other. Graphs that were optimised for inference hold groups
of operations, or kernels of a library, that the interpreter calls by itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import torch
from torch import nn

_PAST = re.compile(r"= (prim::(?!Constant|is_)\w*(?:mkldnn|onednn|llga|fusion|tensorexpr|tensorrt|subgraph)\w*)", re.I)


def hidden(module: nn.Module) -> Iterator[tuple[str, str]]:
    """Pairs of the path of a scripted module and the name of something in it that nothing sees."""
    for path, part in module.named_modules():
        if isinstance(part, torch.jit.ScriptModule) and hasattr(part, "inlined_graph"):
            for kind in dict.fromkeys(_PAST.findall(str(part.inlined_graph))):
                yield path, kind.replace("::", ".")
