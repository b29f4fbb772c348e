"""The command `python -m tfds_ap10k.synthetic`."""

import sys

from tfds_ap10k.synthetic.dataset import main

if __name__ == "__main__":
    sys.exit(main())
