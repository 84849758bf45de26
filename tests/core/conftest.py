"""Hypothesis for these tests: examples take as long as the machine takes, since nothing here measures time."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("meshnode", deadline=None, print_blob=True)
settings.load_profile("meshnode")
