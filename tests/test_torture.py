"""The short form of `make torture`."""

import sys

import pytest
from torture import torture


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_killed_runs_end_as_those_left_in_peace(tmp_path):
    table = torture(3, 0, tmp_path)
    assert len(table) == 3 and table["identical"].all(), table.to_string()
