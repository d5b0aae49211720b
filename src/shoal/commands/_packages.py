"""Packages: what a function gives that is named as package.module:function, installed or under this folder."""

from __future__ import annotations

import importlib
import sys
from typing import Any

from shoal.core.errors import BadData, ShoalError, suggest


def made_by(place: str) -> Any:
    """What the function gives. Raises BadData where there is none, or it fails; no bytecode is written."""
    package, _, name = place.partition(":")
    sys.path.insert(0, "")
    wrote, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        module = importlib.import_module(package)
        made = getattr(module, name, None)
        if not callable(made):
            known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
            raise BadData(f"{place}: {package} has no function {name!r}; {suggest(name, known)}")
        return made()
    except ShoalError:
        raise
    except ModuleNotFoundError as error:
        missing = str(error.name)
        what = "there is no such module" if package.startswith(missing) else f"it needs {missing}, which is not there"
        raise BadData(f"{place}: {what}; install it, or run shoal in the folder that holds it") from error
    except Exception as error:
        why = (str(error).splitlines() or [""])[0]
        raise BadData(f"{place}: raised {type(error).__name__}: {why}; correct it") from error
    finally:
        sys.dont_write_bytecode = wrote
        sys.path.remove("")
