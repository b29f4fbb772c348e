"""People with 17 keypoints from COCO 2017, to pretrain the models of the paper's Table 5 on."""

import re

import tensorflow_datasets as tfds

from ap10k_jax import keypoints
from tfds_ap10k import annotations, builder, sources
from tfds_ap10k.coco_keypoints import selection

FILES = {"train": "train2017", "validation": "val2017"}

INSTRUCTIONS = """\
COCO must be downloaded by hand, from https://cocodataset.org/#download:
  2017 Train images [118K/18GB]  train2017.zip
  2017 Val images [5K/1GB]       val2017.zip
  2017 Train/Val annotations     annotations_trainval2017.zip
Unzip the three in one folder, so that it has train2017/, val2017/ and annotations/ with
person_keypoints_train2017.json and person_keypoints_val2017.json, and name that folder, or the one
above a folder coco (or COCO, coco2017...), with --manual-dir.
"""


class Builder(builder.KeypointBuilder):
    """One record a photograph with labelled people; see `records.features` for what is in it."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}  # noqa: RUF012 (TFDS reads it from the class)
    BUILDER_CONFIGS = [  # noqa: RUF012
        tfds.core.BuilderConfig(name="2017", description="The official split of 2017.")
    ]
    LAYOUT = sources.Layout(
        "COCO 2017",
        "annotations/person_keypoints_*2017.json",
        re.compile(r"(ms)?coco.*", re.IGNORECASE),
        INSTRUCTIONS,
    )
    MANUAL_DOWNLOAD_INSTRUCTIONS = INSTRUCTIONS

    def _info(self) -> tfds.core.DatasetInfo:
        return self.describe(
            species=["person"],
            families=["person"],
            num_keypoints=len(keypoints.COCO_PERSON),
            homepage="https://cocodataset.org/",
        )

    def read(self, root: sources.Root) -> tuple[dict[str, dict], dict]:
        chosen = selection.Selection(FILES)
        splits, report = annotations.read(
            {
                split: root / "annotations" / f"person_keypoints_{part}.json"
                for split, part in FILES.items()
            },
            folder=self.photographs(root),
            keypoint_names=keypoints.COCO_PERSON.names,
            categories={1: ("person", "person")},
            select=chosen,
            progress=builder.checking,
        )
        del report["undocumented_backgrounds"]  # there are none at all in this data set
        return splits, report | chosen.report()

    def photographs(self, root: sources.Root) -> sources.Root:
        return root
