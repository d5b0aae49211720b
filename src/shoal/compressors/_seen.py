"""Seen: what several compressors ask of one scene and what takes long, found once: coupling, importance of units."""

from __future__ import annotations

from weakref import WeakKeyDictionary

from shoal.compressors._importance import Importance
from shoal.core.scene import Scene
from shoal.coupling import Coupling, coupled

_couplings: WeakKeyDictionary[Scene, Coupling] = WeakKeyDictionary()
_importances: WeakKeyDictionary[Scene, dict[tuple[str, int], Importance]] = WeakKeyDictionary()


def coupling_of(scene: Scene) -> Coupling:
    """The widths of its module, found by a run of two rows."""
    if scene not in _couplings:
        _couplings[scene] = coupled(scene.module, scene.head(2).batches[0].example)
    return _couplings[scene]


def importance_of(scene: Scene, by: str, rows: int) -> Importance:
    """How much of its module each unit of a width is; ``by`` and ``rows`` as there."""
    known = _importances.setdefault(scene, {})
    if (by, rows) not in known:
        known[by, rows] = Importance(scene, by, rows)
    return known[by, rows]
