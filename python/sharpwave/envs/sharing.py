"""One store for several environments: copies of what holds it share it, and where they cannot, they are refused."""

from __future__ import annotations

import os
from typing import Any, Self

from sharpwave.store import ValueStore

WAY = "serve it (sharpwave serve DIRECTORY) and give each process sharpwave.serve.Client('http://…')"


class Shared:
    """Holds an argument that copies of its holder share; gymnasium deep-copies the arguments of wrappers."""

    __slots__ = ("it",)

    def __init__(self, it: Any) -> None:
        self.it = it

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Shared) and other.it is self.it

    def __hash__(self) -> int:
        return id(self.it)

    def __reduce__(self) -> tuple[Any, ...]:
        if isinstance(self.it, ValueStore) and not self.it.remote:
            raise TypeError(f"a specification with a store in this process cannot go to another process: {WAY}")
        return Shared, (self.it,)

    def __repr__(self) -> str:
        return repr(self.it)


def unshared(argument: Any) -> Any:
    """The argument itself, whether or not it is `Shared`."""
    return argument.it if isinstance(argument, Shared) else argument


def refuse_copy(store: Any) -> None:
    """A store that a child has of its parent is a copy: what is learned there reaches nobody.

    Raises:
        RuntimeError: the store is such a copy.
    """
    if isinstance(store, ValueStore) and not store.remote and store._process != os.getpid():  # pyright: ignore[reportPrivateUsage]
        raise RuntimeError(
            f"this process has a copy of its parent's store, and what it learns there reaches nobody: {WAY}; or freeze "
            f"the wrapper (update_memory=False)"
        )
