"""Transformers: a model of that library from a local folder, hf:FOLDER, of the class that its config names.

Nothing is downloaded or unpickled, and none of a folder's own code is run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from shoal.core.errors import BadModel, MissingExtra

HF = "hf:"


def is_transformer(text: str) -> bool:
    """Whether it names a folder of transformers."""
    return text.startswith(HF)


def transformer(text: str) -> nn.Module:
    """The model in a folder, in eval mode. Raises BadModel where it cannot be read, or not whole."""
    folder = Path(text.removeprefix(HF))
    if not (folder / "config.json").is_file():
        raise BadModel(f"{text}: {folder} holds no config.json; give a local folder as save_pretrained writes it")
    try:
        import transformers
    except ImportError as error:
        raise MissingExtra(f"{text}: needs transformers; pip install 'shoal[huggingface]'") from error
    logs = transformers.utils.logging
    shown, level = logs.is_progress_bar_enabled(), logs.get_verbosity()
    logs.disable_progress_bar()
    logs.set_verbosity_error()
    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
        named = getattr(transformers, (config.architectures or ["AutoModel"])[0], None)
        known = isinstance(named, type) and issubclass(named, transformers.PreTrainedModel)
        cls: Any = named if known else transformers.AutoModel
        module, told = cls.from_pretrained(
            folder, config=config, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except Exception as error:  # transformers raises OSError, ValueError, KeyError, its own ... for what it cannot read
        why = (str(error).splitlines() or [""])[0]
        raise BadModel(f"{text}: transformers cannot read it ({type(error).__name__}: {why}); save it again") from error
    finally:
        logs.set_verbosity(level)
        if shown:
            logs.enable_progress_bar()
    if told["missing_keys"]:
        some = ", ".join(sorted(told["missing_keys"])[:3])
        raise BadModel(f"{text}: holds no weights for {some}; save the whole model that its config names")
    found: nn.Module = module.eval()
    return found
