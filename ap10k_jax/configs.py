"""The configs, which lie in configs/ in the root of a checkout.

An installation has them in a folder of this name, which Python prefers to this file.
"""

from pathlib import Path

__path__ = [str(Path(__file__).parents[1] / "configs")]
