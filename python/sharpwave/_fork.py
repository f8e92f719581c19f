"""Locks across a fork: only the forking thread lives on in a child, so what another one held would stay held.

An object that owns a lock is `renewed_in_children`: in each child its ``_after_fork`` makes the lock anew. One whose
state must not be caught half changed has ``_before_fork`` and ``_after_fork_in_parent`` too, which take its lock and
give it back.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import Any

_objects: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
_forking = threading.local()  # whom this thread has asked to wait


def renewed_in_children(owner: Any) -> None:
    """From now on, and as long as it lives, ``owner`` is told of forks."""
    _objects[id(owner)] = owner


def _before() -> None:
    _forking.waiting = [owner for owner in list(_objects.values()) if hasattr(owner, "_before_fork")]
    for owner in _forking.waiting:
        owner._before_fork()


def _after_in_parent() -> None:
    for owner in reversed(_forking.waiting):
        owner._after_fork_in_parent()
    del _forking.waiting


def _after_in_child() -> None:
    del _forking.waiting
    for owner in list(_objects.values()):
        owner._after_fork()


os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
