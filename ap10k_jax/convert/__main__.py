"""The command `python -m ap10k_jax.convert`."""

import sys

from ap10k_jax.convert.torch_names import main

if __name__ == "__main__":
    sys.exit(main())
