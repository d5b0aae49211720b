"""Resident: how much memory a run takes at its peak, beyond what was in use before.

On Linux the kernel keeps the largest resident size of a process; it is set back just before the run and read after it.
All of the process is seen, so nothing else may run in it meanwhile, and what it measured for others (VmHWM) starts
anew. On CUDA the peak of torch's allocator is read instead, on the devices of the module and the example.

It is what the machine gives, in pages of 4 KiB (2 MiB where the kernel makes huge ones): the gaps count that the
C library leaves between tensors. What was freed before is handed back to the kernel first, as far as the library can
(malloc_trim, in glibc); memory that another allocator hoards is used again unseen, and the figure is too small.
"""

from __future__ import annotations

import ctypes
import gc
import re
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from shoal.core.errors import BadSetting
from shoal.core.example import arguments, failed, tensors, unmarked
from shoal.costing.timing.runtimes import Run

_PROCESS = Path("/proc/self")


def peak_memory(module: nn.Module, example: Any) -> int:
    """Bytes of memory that one run takes at its peak, above what was in use before: intermediates and the output.

    Weights and the example are there before and do not count. The module runs once to warm up, in eval mode without
    gradients, and is left as it was. What its tensors alone come to, on any machine, is `activation_bytes` of a cost.
    Raises BadModel when the module does not run, BadSetting on a device or a system that does not tell.

        peak_memory(nn.Identity(), torch.zeros(2**20))      # 0, or a page
    """
    args, kwargs = arguments(example)
    held = [*module.parameters(), *module.buffers(), *tensors((args, kwargs))]
    devices = {tensor.device for tensor in held if tensor.is_cuda}
    other = {tensor.device.type for tensor in held} - {"cpu", "cuda"}
    if other or not (devices or sys.platform == "linux"):
        where = ", ".join(sorted(other)) or sys.platform
        raise BadSetting(f"peak_memory: cannot be measured on {where}; measure on CUDA or on a processor under Linux")

    def run() -> None:
        module(*args, **kwargs)

    with unmarked(module), torch.inference_mode():
        try:
            run()
        except Exception as error:
            raise failed(module, error) from error
        return _on_cuda(run, devices) if devices else _on_linux(run)


def _on_cuda(run: Run, devices: set[torch.device]) -> int:
    for device in devices:
        torch.cuda.reset_peak_memory_stats(device)
    before = {device: torch.cuda.memory_allocated(device) for device in devices}
    run()
    return sum(torch.cuda.max_memory_allocated(device) - before[device] for device in devices)


def _on_linux(run: Run) -> int:
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        library = ctypes.CDLL(None)
        if hasattr(library, "malloc_trim"):
            library.malloc_trim(0)
        try:
            (_PROCESS / "clear_refs").write_text("5")
        except OSError as error:
            fix = "run where the process may write to it, or on CUDA"
            raise BadSetting(f"peak_memory: {error.filename}: {error.strerror}; {fix}") from error
        before = _highest()
        run()
        return _highest() - before
    finally:
        if collecting:
            gc.enable()


def _highest() -> int:
    """The largest resident size of this process since it was set back, in bytes."""
    found = re.search(r"^VmHWM:\s+(\d+) kB$", (_PROCESS / "status").read_text(), re.MULTILINE)
    assert found is not None  # every Linux that has clear_refs writes it
    return int(found[1]) * 1024
