"""The paper's data sets in miniature: 160 drawings as AP-10K, some of them as Animal-Pose too."""

import functools
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from ap10k_jax import inference, keypoints, run, train
from ap10k_jax.data import batches
from ap10k_jax.reproduce import plan
from ap10k_jax.runtime import errors, sharding
from tfds_ap10k import build, synthetic
from tfds_ap10k.animal_pose import conversion

IMAGES = 160
SETTINGS = (
    *("model.name=nano", "data.image_size=64", "init_from=", "drop_remainder=False"),
    *("epochs=1", "epochs_of_whole_split=False", "batch_size=8", "eval.batch_size=8"),
    *("data.max_animals=16", "eval.every_epochs=0", "eval.flip_test=False"),
    *("transfer/*:draw.images=5", "*few_shot*:draw.shots=2"),
    # One rate for all, so that one compiled step serves all: `share_steps` relies on it.
    *("optimizer.learning_rate=1e-3", "optimizer.warmup_steps=0", "optimizer.decay_at=()"),
    "optimizer.linear_decay=False",
)


def build_all(folder: Path) -> Path:
    """The folder with all splits of AP-10K built, and the first of Animal-Pose."""
    drawn = synthetic.generate(folder / "drawn", images=IMAGES)
    for n in (1, 2, 3):
        build.build(f"split{n}", manual_dir=drawn, data_dir=folder)
    write_animal_pose(drawn, folder / "animal_pose_drawn")
    build.build(
        "split1", manual_dir=folder / "animal_pose_drawn", data_dir=folder, dataset="animal_pose"
    )
    return folder


def write_animal_pose(drawn: Path, folder: Path) -> None:
    """Drawings of sheep, horses and cows as Animal-Pose's own files; ears, withers not labelled."""
    ids = {name: i for i, name in enumerate(conversion.SPECIES, start=1)}
    images, animals = {}, []
    for part in ("train", "val", "test"):
        coco = json.loads((drawn / "annotations" / f"ap10k-{part}-split1.json").read_text())
        names = {category["id"]: category["name"] for category in coco["categories"]}
        files = {image["id"]: image["file_name"] for image in coco["images"]}
        for animal in coco["annotations"]:
            if names[animal["category_id"]] not in ids:
                continue
            images[str(animal["image_id"])] = files[animal["image_id"]]
            points = np.zeros((len(keypoints.ANIMAL_POSE), 3))
            mapping = list(keypoints.ANIMAL_POSE_TO_AP10K)
            points[mapping] = np.reshape(animal["keypoints"], (-1, 3))
            points[:, 2] = points[:, 2] > 0
            x, y, width, height = animal["bbox"]
            animals.append(
                {
                    "image_id": animal["image_id"],
                    "category_id": ids[names[animal["category_id"]]],
                    "bbox": [x, y, x + width, y + height],
                    "num_keypoints": 20,
                    "keypoints": points.tolist(),
                }
            )
    names = list(keypoints.ANIMAL_POSE.names)
    categories = [{"id": i, "name": name, "keypoints": names} for name, i in ids.items()]
    content = {"images": images, "annotations": animals, "categories": categories}
    (folder / "images").mkdir(parents=True)
    (folder / "keypoints.json").write_text(json.dumps(content))
    for file in images.values():
        (folder / "images" / file).hardlink_to(drawn / "data" / file)


def share_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs in this process use one compiled step for all: one device, every batch filled up to 8,
    networks and rates alike.
    """
    shardings = sharding.shardings(jax.devices()[:1])
    monkeypatch.setattr(sharding, "shardings", lambda *_: shardings)
    make_train_step, compiled = train.make_train_step, {}

    def train_step(module, optimizer, shardings, **options):
        if module not in compiled:
            compiled[module] = make_train_step(module, optimizer, shardings, **options)
        return compiled[module]

    train_batches = batches.train_batches
    monkeypatch.setattr(train, "make_train_step", train_step)
    monkeypatch.setattr(
        batches,
        "train_batches",
        lambda *args, **kw: train_batches(*args, **kw | {"multiple_of": 8}),
    )
    monkeypatch.setattr(
        inference, "make_predict_step", functools.cache(inference.make_predict_step)
    )


def start(step: plan.Step) -> int:
    """`reproduce.start` in this process: what is compiled stays."""
    try:
        run.run(step.config.copy_and_resolve_references(), step.workdir)
    except (errors.UserError, OSError) as error:
        print(f"error: {error}")
        return 1
    return 0
