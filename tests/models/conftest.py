"""The two sets of operations that the networks are computed with."""

import pytest

from ap10k_jax.models import ops


@pytest.fixture(params=["cpu", "gpu"])
def lowering(request):
    """The operations for CPUs, then those for accelerators, both run on the tests' device."""
    with ops.target_platform(request.param):
        yield request.param
