"""Predictions over a data set, their scores, and a picture of the best and worst of them.

As the protocol has it: ground-truth boxes; the heatmaps of the crop and of its mirror image are
averaged, then decoded; keypoints go back to image pixels on the host.
"""

import functools
import json
import math
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float, UInt8
from ml_collections import ConfigDict
from tqdm import tqdm

from ap10k_jax import bootstrap, inference, keypoints, metrics, transforms, visualize
from ap10k_jax.data import batches
from ap10k_jax.data.animals import Animals
from ap10k_jax.runtime import files, sharding, signals


def predict(
    step: Callable,
    variables: dict,
    animals: Animals,
    config: ConfigDict,
    *,
    name: str,
    shardings: sharding.Shardings | None = None,
) -> list[dict]:
    """A COCO keypoint row for every animal, in the data set's order; `name` is for the bar.

    `shardings` are those of `step`, over all devices by default. Several processes share the work,
    and each gets all rows. Raises signals.Stopped between batches once the process is told to stop.
    """
    shardings = shardings or sharding.shardings()
    loader = batches.eval_batches(
        animals,
        batch_size=config.eval.batch_size,
        image_size=config.data.image_size,
        rows=functools.partial(sharding.rows, shardings),
        threads=config.data.loader_threads,
    )
    total = math.ceil(len(animals) / config.eval.batch_size)
    rows = []
    bar = {"total": total, "desc": name, "unit": "batch", "leave": False}
    for own in tqdm(loader, **bar, disable=jax.process_index() > 0):
        signals.check()
        points = np.asarray(step(variables, sharding.split(own["image"], shardings)))
        batch = own | sharding.gather({name: own[name] for name in ("center", "scale", "index")})
        points = inference.to_image(points, batch)
        # the last batch is filled up with animals of index -1
        rows += [
            row(animals.annotation(int(index)), points_)
            for index, points_ in zip(batch["index"], points, strict=True)
            if index >= 0
        ]
    if len(rows) != len(animals):
        raise RuntimeError(f"{name}: {len(rows)} predictions for {len(animals)} animals")
    return rows


def row(annotation: dict, points: Float[np.ndarray, "k 3"]) -> dict:
    """A prediction as `metrics.evaluate` takes it, for the animal whose box was used."""
    return {
        "image_id": annotation["image_id"],
        "category_id": annotation["category_id"],
        "id": annotation["id"],
        "keypoints": points,
    }


def score(animals: Animals, rows: list[dict], *, sigmas: str) -> dict:
    """`metrics.evaluate` on exactly the animals that were predicted.

    Raises RuntimeError where an animal was lost on the way, or its species: our own mistake, which
    would only look like a worse network.
    """
    result = metrics.evaluate(animals.ground_truth(), rows, sigmas=sigmas)
    lost, confused = result["num_missing"], result["num_wrong_category"]
    if lost or confused:
        raise RuntimeError(f"{lost} animals were lost and {confused} have another species")
    return result


def full_score(animals: Animals, rows: list[dict], *, sigmas: str) -> dict:
    """`score`, and what a report adds to it.

    `AP_by_sigmas` with every vector there is for the joints, `instance_AP` (every animal counting
    alike), and `intervals` of 95 % by resampling images: of AP, per species and family, and of the
    instance AP. `area_over_box` is the median of the annotations' area over that of their box: 1 in
    AP-10K's own files, and AP follows it.
    """
    truth, result = animals.ground_truth(), score(animals, rows, sigmas=sigmas)
    is_ap10k = animals.keypoint_set.names == keypoints.AP10K.names
    scores = [
        result if name == sigmas else metrics.evaluate(truth, rows, sigmas=name)
        for name in (metrics.SIGMAS if is_ap10k else ("corrected",))
    ]
    records = [a for a in truth["annotations"] if not keypoints.is_crowd(a)]
    ratios = [a["area"] / (a["bbox"][2] * a["bbox"][3]) for a in records]
    result["area_over_box"] = round(float(np.median(ratios)), 3)
    result["AP_by_sigmas"] = {numbers["sigmas"]: numbers["AP"] for numbers in scores}
    alike = metrics.instance_view(truth, rows)
    result["instance_AP"] = metrics.evaluate(*alike, sigmas=sigmas)["AP"]
    result["intervals"] = bootstrap.intervals(truth, rows, sigmas=sigmas)
    result["intervals"]["instance_AP"] = bootstrap.intervals(*alike, sigmas=sigmas)["AP"]
    return result


def write_predictions(path: Path, rows: list[dict]) -> None:
    """Rows as a COCO keypoint results file, with the annotation's id beside."""
    plain = [
        {
            **row,
            "keypoints": [round(float(v), 3) for v in row["keypoints"].ravel()],
            "score": metrics.instance_score(row["keypoints"]),
        }
        for row in rows
    ]
    files.write_text(path, json.dumps(plain))


def picture(
    animals: Animals, rows: list[dict], *, sigmas: str, side: int = 240
) -> UInt8[np.ndarray, "H W 3"]:
    """The best, median and worst animals by OKS, a row each: predicted beside true skeletons."""
    records = [animals.annotation(i) for i in range(len(animals))]
    truth = np.array([r["keypoints"] for r in records], float).reshape(len(records), -1, 3)
    predicted = np.array([r["keypoints"] for r in rows])
    similarity = metrics.oks(
        truth[..., :2],
        predicted[..., :2],
        np.array([r["area"] for r in records]),
        sigmas=metrics.sigmas_of(animals.keypoint_set, sigmas)[1],
        visible=truth[..., 2] > 0,
    )
    names = {c["id"]: c["name"] for c in animals.ground_truth()["categories"]}
    panels = []
    # What nobody labelled is not scored, and was never taught: it would only hide the rest.
    predicted[..., 2] *= truth[..., 2] > 0
    for i in visualize.best_median_worst(similarity):
        crop = batches.upright(animals[i], image_size=side)
        matrix = transforms.affine_matrix(crop["center"], crop["scale"], size=(side, side))
        moved = [
            np.column_stack([transforms.apply_affine(points[:, :2], matrix), points[:, 2]])
            for points in (predicted[i], truth[i])
        ]
        caption = (
            f"{names[records[i]['category_id']]}  OKS {similarity[i]:.2f}  id {records[i]['id']}"
        )
        panels.append(visualize.Panel(crop["image"], *moved, caption))
    return visualize.contact_sheet(panels, side=side, keypoint_set=animals.keypoint_set)
