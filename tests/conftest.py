"""Hypothesis profiles, chosen by SHARPWAVE_HYPOTHESIS: `ci` by default; `tenfold` tries ten times as much, from new
seeds; `long` more, and longer; `quick` finds and does not shrink."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings
from sharpwave._openmp import share_the_machine

share_the_machine()  # before a test imports torch: two processes of tests, and what else runs, want the same cores

collect_ignore = ["contracts"]
"""They need packages of the second environment: `make test-contracts` runs them there."""

_quiet = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
settings.register_profile(
    "ci", max_examples=60, stateful_step_count=25, deadline=None, derandomize=True, suppress_health_check=_quiet
)
settings.register_profile(
    "tenfold", settings.get_profile("ci"), max_examples=600, derandomize=False, print_blob=True, database=None
)
settings.register_profile(
    "long", max_examples=1000, stateful_step_count=60, deadline=None, print_blob=True, suppress_health_check=_quiet
)
settings.register_profile(
    "quick",
    settings.get_profile("ci"),
    max_examples=int(os.environ.get("SHARPWAVE_EXAMPLES", 30)),
    phases=(Phase.explicit, Phase.generate),
    report_multiple_bugs=False,
    database=None,
)
settings.load_profile(os.environ.get("SHARPWAVE_HYPOTHESIS", "ci"))
