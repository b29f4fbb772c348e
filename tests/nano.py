"""The tests' tiny network; as a program, one of ours with it: `python tests/nano.py main ...`."""

import functools
import runpy
import sys

from ap10k_jax import models
from ap10k_jax.models import hrnet

# Two branches with one block each: the fewest operations that still exchange.
STAGES = (hrnet.Stage(1, 1, (4, 8)), hrnet.Stage(1, 1, (4, 8)))


def register() -> None:
    models.MODELS["nano"] = functools.partial(hrnet.HRNet, STAGES, stem_features=4, bottlenecks=1)


if __name__ == "__main__":
    register()
    sys.argv = sys.argv[1:]
    runpy.run_module(f"ap10k_jax.{sys.argv[0]}", run_name="__main__", alter_sys=False)
