"""Mutation testing works, and a few mutants of each module of the core are noticed."""

import subprocess
import sys

import pytest

mutants = pytest.importorskip("mutants", reason="needs mutmut, which is in the extra `test`")

pytestmark = pytest.mark.slow

# How many mutants of each module are tried here; tests/README.md says how to try them all.
DOSE = {"losses": 4, "metrics": 6, "transforms": 6, "keypoints": 6, "codec": 6}


@pytest.mark.parametrize("module", mutants.TESTS_OF)
def test_mutants_change_what_runs_and_no_two_are_alike(module):
    found = mutants.mutants(module)
    assert len({source for *_, source in found}) == len(found) > 0
    for before, after, source in found[::20]:
        assert before != after
        assert source != mutants.source_of(module)
        assert "-> None:" in source or '"""' in source  # annotations and doc strings stay


def test_equivalent_mutants_exist():
    # A line that was changed since takes its entry with it.
    for module in mutants.TESTS_OF:
        found = {(before, after) for before, after, _ in mutants.mutants(module)}
        assert set(mutants.equivalent(module)) <= found


@pytest.mark.parametrize(("module", "count"), DOSE.items())
def test_some_mutants_are_noticed(module, count):
    """In a process of its own: this one may have started JAX, after which none can be forked."""
    command = [sys.executable, mutants.__file__, module, f"--sample={count}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{module}: {count} mutants" in done.stdout
    assert "SURVIVED" not in done.stdout
