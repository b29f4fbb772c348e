"""AP-10K as a TensorFlow data set, readable without TensorFlow.

Importing this package registers its builders, so that `tfds.builder("ap10k/split1")` and
`tfds.data_source("ap10k/split1", split="train")` know them.
"""

from tfds_ap10k.ap10k import Builder as Ap10k

__all__ = ["Ap10k"]
