"""Real processes, really killed: see kill.py, of which this is a small dose."""

import kill
import pytest


@pytest.mark.slow
def test_whatever_is_killed_ends_as_what_was_not(tmp_path, nano):
    counts = kill.campaign(tmp_path, 7, seed=1)
    told = counts.pop("SIGTERM")
    assert counts.total() >= 6
    assert told
