"""The synthetic animals with other joints: some left out, or some twice, under names of our own."""

import json
import shutil
from pathlib import Path

import numpy as np

from ap10k_jax import keypoints

# Our name: the AP-10K joint that stands for it.
NINE = {
    "Nose": "nose",
    "Eye_R": "right_eye",
    "Eye_L": "left_eye",
    "TailBase": "root_of_tail",
    "Paw_front_R": "right_front_paw",
    "Paw_front_L": "left_front_paw",
    "Paw_back_L": "left_back_paw",
    "Paw_back_R": "right_back_paw",
    "Withers": "neck",
}
TWENTY = {f"{name}_of_20": name for name in keypoints.AP10K.names}
TWENTY |= {"snout": "nose", "r_toe": "right_front_paw", "l_toe": "left_front_paw"}
SKELETON = [[1, 2], [1, 3], [1, 9], [9, 4]]


def write(drawn: Path, folder: Path, joints: dict[str, str]) -> Path:
    """A folder for `--dataset=own` with the drawings of an AP-10K folder and these joints."""
    (folder / "annotations").mkdir(parents=True)
    shutil.copytree(drawn / "data", folder / "images")
    order = [keypoints.AP10K.names.index(name) for name in joints.values()]
    for part in ("train", "val", "test"):
        path = drawn / "annotations" / f"ap10k-{part}-split1.json"
        content = json.loads(path.read_text())
        for category in content["categories"]:
            category |= {"id": 1000 + category["id"], "name": f"our {category['name']}"}
            category |= {"keypoints": list(joints), "skeleton": SKELETON}
        for animal in content["annotations"]:
            points = np.reshape(animal["keypoints"], (17, 3))[order]
            animal |= {"keypoints": points.ravel().tolist()}
            animal |= {"num_keypoints": int((points[:, 2] > 0).sum())}
            animal["category_id"] += 1000
        (folder / "annotations" / f"{part}.json").write_text(json.dumps(content))
    return folder
