"""Artifact: networks as files: saved whole, checked when opened, never a pickle.

folder.py     the run folder: save, load, describe
programs.py   a module as .pt2 and .onnx, compared with the module it comes from
huggingface.py  an edited model of transformers as from_pretrained opens it
weights.py    a module's tensors as safetensors, and strictly back
vetting.py    what a file may hold before anything in it is followed: no pickle, no foreign code
files.py      hashes, sealed JSON, and writing beside before renaming
card.py       README.md: what the folder is and how it is opened
"""

from shoal.artifact.folder import Savable, describe, load, save
from shoal.artifact.programs import export, load_program

__all__ = ["Savable", "describe", "export", "load", "load_program", "save"]
