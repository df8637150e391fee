"""How fast petseg is, beside its rivals and beside what the machine allows: `python -m benchmarks`, or `make bench`."""

import petseg_lib  # noqa: F401  before torch, since it sets how long waiting threads spin: for rivals as for ours
