"""Memory that a start has used and freed, given back to the system."""

from __future__ import annotations

import ctypes
import gc


def give_back() -> None:
    """Collect garbage, and have the C library return its free pages: it keeps those of the largest moment else. What is
    left stays, and no collection in the middle of parts looks at it again. Does less where the library is not glibc."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    gc.freeze()
