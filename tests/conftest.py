"""Settings of all tests."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("lineguard", deadline=None)  # on shared cores an example's time says nothing of the code
settings.load_profile("lineguard")
