"""Cost of AP: ours against plain pycocotools, on as many animals as AP-10K's val and on 100,000.

    python benchmarks/metrics.py [--animals=1272,100000]

Both get the same drawn annotations, predictions and sigmas, take turns, and must come to the same
numbers. Plain pycocotools is given ready scores and boxes; ours checks the predictions, scores the
animals, suppresses duplicates (there are none here), and adds AP per species and family. Medians of
CPU-seconds; the memory at its peak, beyond the inputs, is of a process of its own, as Linux counts.
"""

import argparse
import contextlib
import gc
import io
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ap10k_jax import keypoints, metrics
from tfds_ap10k import taxonomy

SIDE = 1024  # pixels of a photograph
PER_IMAGE = 1.3  # animals, as in AP-10K
REPETITIONS = {1272: 5, 100_000: 1}


def draw(animals: int, seed: int = 0) -> tuple[dict, list[dict]]:
    """Annotations, and predictions that are off by some pixels; animals of an image lie apart."""
    rng = np.random.default_rng(seed)
    images = int(animals / PER_IMAGE)
    image_ids = np.sort(np.append(np.arange(images), rng.integers(0, images, animals - images)))
    species = rng.choice([s.id for s in taxonomy.SPECIES], images)  # one species an image
    sides = rng.uniform(40, 400, (animals, 2))
    corners = rng.uniform(0, SIDE - sides)
    points = corners[:, None] + rng.random((animals, 17, 2)) * sides[:, None]
    labelled = rng.random((animals, 17)) < 0.7
    labelled[:, 0] = True
    noise = rng.gamma(2.0, 0.02, (animals, 1, 1)) * np.sqrt(sides.prod(axis=1))[:, None, None]
    predicted = points + rng.normal(size=points.shape) * noise
    scores = rng.uniform(0.1, 1, (animals, 17, 1))
    truth = {
        "images": [{"id": i, "width": SIDE, "height": SIDE} for i in range(images)],
        "categories": [
            {
                "id": s.id,
                "name": s.name,
                "supercategory": s.family,
                "keypoints": list(keypoints.AP10K.names),
                "skeleton": [[a + 1, b + 1] for a, b in keypoints.AP10K.skeleton],
            }
            for s in taxonomy.SPECIES
        ],
        "annotations": [
            {
                "id": i + 1,
                "image_id": int(image_ids[i]),
                "category_id": int(species[image_ids[i]]),
                "bbox": [*corners[i].tolist(), *sides[i].tolist()],
                "area": float(sides[i].prod()),
                "iscrowd": 0,
                "num_keypoints": int(labelled[i].sum()),
                "keypoints": np.column_stack([points[i] * labelled[i][:, None], 2 * labelled[i]])
                .ravel()
                .tolist(),
            }
            for i in range(animals)
        ],
    }
    rows = [
        {
            "id": a["id"],
            "image_id": a["image_id"],
            "category_id": a["category_id"],
            "keypoints": np.column_stack([predicted[i], scores[i]]),
        }
        for i, a in enumerate(truth["annotations"])
    ]
    return truth, rows


def plain(truth: dict, results: list[dict]) -> np.ndarray:
    """pycocotools' ten statistics."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), "keypoints")
        evaluation.params.kpt_oks_sigmas = np.array(metrics.SIGMAS["corrected"])
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


def as_results(truth: dict, rows: list[dict]) -> list[dict]:
    return [
        {
            "image_id": row["image_id"],
            "category_id": row["category_id"],
            "keypoints": row["keypoints"].ravel().tolist(),
            "score": metrics.instance_score(row["keypoints"]),
            "bbox": list(annotation["bbox"]),
        }
        for row, annotation in zip(rows, truth["annotations"], strict=True)
    ]


def peak(function: Callable) -> float:
    """MB taken at the most while it runs, beyond what is held now. By a copy of this process."""
    gc.collect()
    held = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    if not (child := os.fork()):
        function()
        os._exit(0)
    _, status, usage = os.wait4(child, 0)
    assert not status, "it failed"
    return (1024 * usage.ru_maxrss - held) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--animals", default="1272,100000", help="comma-separated numbers")
    flags = parser.parse_args()

    print("| animals | way | CPU-s | peak MB | AP |\n|---|---|---|---|---|")
    for animals in map(int, flags.animals.split(",")):
        truth, rows = draw(animals)
        results = as_results(truth, rows)
        ways = {
            "plain pycocotools": lambda t=truth, r=results: plain(t, r),
            "ap10k_jax.metrics": lambda t=truth, r=rows: metrics.evaluate(t, r),
        }
        # first: memory that this process has taken and freed would hide what they take
        peaks = {name: peak(way) for name, way in ways.items()}
        seconds, found = {name: [] for name in ways}, {}
        for _ in range(REPETITIONS.get(animals, 1)):
            for name, way in ways.items():
                start = time.process_time()
                found[name] = way()
                seconds[name].append(time.process_time() - start)
        theirs, ours = found.values()
        mine = [ours[name] for name in metrics.STATISTICS]
        np.testing.assert_array_equal(mine, np.where(theirs > -1, theirs, np.nan))
        for name in ways:
            cost = f"{np.median(seconds[name]):.2f} | {peaks[name]:,.0f}"
            print(f"| {animals:,} | {name} | {cost} | {ours['AP']:.4f} |", flush=True)


if __name__ == "__main__":
    main()
