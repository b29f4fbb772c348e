"""An animal with noise for pixels, for tests of crops."""

import numpy as np


def example(seed=0, size=(300, 200), box=(60, 40, 180, 120), labelled=17):
    """A noise image and joints at random places inside the box."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(box[:2], np.add(box[:2], box[2:]), (17, 2))
    visible = 2 * (rng.permutation(17) < labelled)
    return {
        "image": rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8),
        "box": np.array(box, np.float32),
        "keypoints": np.column_stack([points, visible]).astype(np.float32),
    }
