"""How many threads does attnext use, and how do others limit them?"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from . import _core
from .arguments import integer

__all__ = ["get_num_threads", "num_threads", "register_threadpoolctl", "set_num_threads"]

MAX_THREADS = 2**31 - 1


def set_num_threads(count: int | None) -> None:
    """Sets how many threads every later call uses, from any thread.

    Parameters
    ----------
    count : int or None
        At least 1, the caller's included. None: the default again, which is the first of
        ``ATTNEXT_NUM_THREADS``, ``OMP_NUM_THREADS``, and the cores this process may use.

    Raises
    ------
    ValueError
        Fewer than 1, or more than 32 bits count.
    TypeError
        Not an integer.

    Examples
    --------
    >>> import attnext
    >>> attnext.set_num_threads(2)
    >>> attnext.get_num_threads()
    2
    >>> attnext.set_num_threads(None)
    """
    if count is None:
        _core.set_num_threads(0)
        return
    number = integer("set_num_threads", "count", count)
    if not 1 <= number <= MAX_THREADS:
        raise ValueError(
            f"set_num_threads: count must be in [1, {MAX_THREADS}], or None, found {number}"
        )
    _core.set_num_threads(number)


def get_num_threads() -> int:
    """How many threads the next call uses at most."""
    return _core.get_num_threads()


@contextmanager
def num_threads(count: int) -> Iterator[None]:
    """Limits attnext, in the whole process, to `count` threads inside a ``with`` block.

    Examples
    --------
    >>> import attnext
    >>> with attnext.num_threads(1):
    ...     attnext.get_num_threads()
    1
    """
    before = get_num_threads()
    set_num_threads(count)
    try:
        yield
    finally:
        set_num_threads(before)


def register_threadpoolctl() -> None:
    """Lets ``threadpoolctl.threadpool_limits`` limit attnext too, as ``user_api="attnext"``.

    Done by ``import attnext`` where threadpoolctl was imported before it; otherwise call this once.

    Raises
    ------
    ImportError
        threadpoolctl is not installed.
    """
    import threadpoolctl

    if not any(c.internal_api == "attnext" for c in threadpoolctl._ALL_CONTROLLERS):
        threadpoolctl.register(_make_controller(threadpoolctl.LibController))


def register_if_imported() -> None:
    """`register_threadpoolctl` where it costs no import."""
    if "threadpoolctl" in sys.modules:
        register_threadpoolctl()


def _make_controller(base: type[Any]) -> type[Any]:
    class AttnextController(base):  # type: ignore[misc]
        """libattnext's thread pool, as threadpoolctl sees it."""

        user_api = "attnext"
        internal_api = "attnext"
        filename_prefixes = ("libattnext",)
        check_symbols = ("attnext_get_num_threads", "attnext_set_num_threads")

        def get_num_threads(self) -> int:
            count: int = self.dynlib.attnext_get_num_threads()
            return count

        def set_num_threads(self, num_threads: int) -> None:
            self.dynlib.attnext_set_num_threads(num_threads)

        def get_version(self) -> str:
            return _core.version()

    return AttnextController
