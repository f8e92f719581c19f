"""Hypothesis profiles: `ci` by default, `long` with SHARPWAVE_HYPOTHESIS=long."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

_quiet = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
settings.register_profile(
    "ci", max_examples=60, stateful_step_count=25, deadline=None, derandomize=True, suppress_health_check=_quiet
)
settings.register_profile(
    "long", max_examples=1000, stateful_step_count=60, deadline=None, print_blob=True, suppress_health_check=_quiet
)
settings.load_profile(os.environ.get("SHARPWAVE_HYPOTHESIS", "ci"))
