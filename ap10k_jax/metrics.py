"""Scores of keypoints: OKS, the suppression of duplicates, and COCO's AP over species.

Letters: n animals, k keypoints. Coordinates are (x, y) in image pixels, areas in pixels squared.

The reported AP is the mean over species of each species' AP (`category_id` is the species), by
pycocotools. What comes before it, a score for every animal and OKS-NMS within an image, follows
MMPose 1.x (CocoMetric with its defaults), as every number published since 2022.
"""

import contextlib
import io
import json
import warnings
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ap10k_jax import keypoints as joints
from ap10k_jax import transforms

# Of AP-10K's joints; other joints have sigmas of their own, see `sigmas_of`.
SIGMAS = {"corrected": joints.AP10K.sigmas, "paper": joints.AP10K_PAPER_SIGMAS}
JOINT_SCORE_THRESHOLD = 0.2
NMS_THRESHOLD = 0.9
STATISTICS = ("AP", "AP50", "AP75", "APM", "APL", "AR", "AR50", "AR75", "ARM", "ARL")


def oks(
    truth: Float[np.ndarray, "*n k 2"],
    predicted: Float[np.ndarray, "*n k 2"],
    area: Float[np.ndarray, "*n"] | float,
    *,
    sigmas: Float[np.ndarray, " k"] | tuple[float, ...] = joints.AP10K.sigmas,
    visible: Bool[np.ndarray, "*n k"] | None = None,
) -> Float[np.ndarray, "*n"]:
    """Object keypoint similarity in 0..1: the mean over visible joints of a Gaussian of the error.

    Its spread at a joint is 2 x sigma x sqrt(area). Without `visible` all joints count; an animal
    without a visible joint gets 0.
    """
    squared = np.sum(np.square(np.asarray(truth, float) - predicted), axis=-1)
    area = np.asarray(area, float)[..., None] + np.spacing(1)
    similarity = np.exp(-squared / np.square(2 * np.asarray(sigmas)) / area / 2)
    visible = np.ones(squared.shape, bool) if visible is None else np.asarray(visible, bool)
    counted = np.maximum(visible.sum(axis=-1), 1)
    return np.sum(similarity * visible, axis=-1) / counted


def oks_nms(
    keypoints: Float[np.ndarray, "n k 2"],
    scores: Float[np.ndarray, " n"],
    areas: Float[np.ndarray, " n"],
    *,
    sigmas: Float[np.ndarray, " k"] | tuple[float, ...] = joints.AP10K.sigmas,
    threshold: float = NMS_THRESHOLD,
) -> list[int]:
    """Indices of the poses to keep, best score first: none is more similar than the threshold.

    The similarity of two poses is their OKS over all joints, with the mean of their areas. Of equal
    scores the later pose wins, as in MMPose.
    """
    order = np.argsort(scores, kind="stable")[::-1]
    kept = []
    while len(order):
        best, rest = order[0], order[1:]
        kept.append(int(best))
        area = (areas[best] + areas[rest]) / 2
        similarity = oks(keypoints[best][None], keypoints[rest], area, sigmas=sigmas)
        order = rest[similarity <= threshold]
    return kept


def instance_score(keypoints: Float[np.ndarray, "k 3"]) -> float:
    """The score of an animal: the mean of its joint scores above 0.2, or 0 if there are none."""
    scores = np.asarray(keypoints, float)[:, 2]
    confident = scores[scores > JOINT_SCORE_THRESHOLD]
    return float(confident.mean()) if len(confident) else 0.0


def sigmas_of(
    keypoint_set: joints.KeypointSet, sigmas: str = "corrected"
) -> tuple[str, tuple[float, ...]]:
    """The vector to score these joints with, and its name in results.

    `sigmas` chooses between AP-10K's two. Of other joints 'corrected' stands for the set's own:
    "own", or "uniform 0.05" where nobody measured them. Raises ValueError for 'paper' then.
    """
    if sigmas not in SIGMAS:
        raise ValueError(f"unknown sigmas {sigmas!r}: choose from {', '.join(SIGMAS)}")
    if keypoint_set.names == joints.AP10K.names and sigmas == "paper":
        return "paper", SIGMAS["paper"]
    if sigmas == "paper":
        raise ValueError("the paper's sigmas are of AP-10K's 17 joints, and these are others")
    if keypoint_set == joints.AP10K:
        return "corrected", keypoint_set.sigmas
    unmeasured = set(keypoint_set.sigmas) == {joints.DEFAULT_SIGMA}
    return f"uniform {joints.DEFAULT_SIGMA}" if unmeasured else "own", keypoint_set.sigmas


def evaluate(
    annotations: dict | str | Path, predictions: list[dict], *, sigmas: str = "corrected"
) -> dict:
    """AP and its kin of predictions for ground-truth boxes.

    `annotations` is a COCO dict or its file. A prediction has `image_id`, `category_id`, `id` (of
    the annotation whose box was used) and `keypoints` (k, 3): x, y in image pixels, score. `sigmas`
    is 'corrected' (December 2021, today's default) or 'paper' (that of the AP-10K paper's tables);
    annotations whose categories declare other joints than AP-10K's are scored with their own.

    Annotations with `iscrowd` 1 are ignore regions, as in COCO: a crowd is never missed, and a
    prediction that fits nothing better counts neither way. Ids may be any whole numbers.

    Returns the ten COCO statistics, nan where there is no animal to measure (M: area 32^2 to 96^2,
    L: above); `per_species` and `per_family` AP by name, a family's being the mean over its
    species; `num_animals` per species; `num_missing`, the labelled animals without prediction
    (misses); `num_wrong_category`, the predictions with another species than their annotation (a
    slip, as a rule: it ruins AP, and a warning says so); and the name of the `sigmas`.

    Raises ValueError, naming every problem, for predictions that do not fit the annotations.
    """
    if not isinstance(annotations, dict):
        annotations = json.loads(Path(annotations).read_text())
    coco = compare(annotations, predictions, sigmas)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints; silence it
        coco.accumulate()
        coco.summarize()

    result = {name: _nan_if_none(value) for name, value in zip(STATISTICS, coco.stats, strict=True)}
    result |= _per_species(annotations, coco)
    by_id = {annotation["id"]: annotation for annotation in annotations["annotations"]}
    labelled = {id for id, annotation in by_id.items() if joints.is_animal(annotation)}
    result["num_missing"] = len(labelled - {row["id"] for row in predictions})
    result["num_wrong_category"] = sum(
        row["category_id"] != by_id[row["id"]]["category_id"] for row in predictions
    )
    if result["num_wrong_category"]:
        warnings.warn(
            f"{result['num_wrong_category']} of {len(predictions)} predictions have another "
            "category than the annotation whose box was used: AP, the mean over species, counts "
            "them as wrong animals",
            stacklevel=2,
        )
    result["sigmas"], _ = sigmas_of(joints.of_annotations(annotations), sigmas)
    return result


def as_one_species(records: list[dict]) -> list[dict]:
    """Annotations or predictions without their species: their AP counts every animal alike."""
    return [record | {"category_id": 1} for record in records]


def instance_view(annotations: dict, predictions: list[dict]) -> tuple[dict, list[dict]]:
    """Both with all species as the one category "animal".

    `evaluate` on them gives the instance AP, in which a frequent species weighs more than a rare
    one. Both sides must change: predictions of category 1 against true species are a known slip.
    """
    category = annotations["categories"][0] | {"id": 1, "name": "animal", "supercategory": "all"}
    truth = annotations | {
        "categories": [category],
        "annotations": as_one_species(annotations["annotations"]),
    }
    return truth, as_one_species(predictions)


def compare(annotations: dict, predictions: list[dict], sigmas: str) -> COCOeval:
    """pycocotools' evaluation with every prediction matched, after OKS-NMS; checks them first."""
    vector = np.array(sigmas_of(joints.of_annotations(annotations), sigmas)[1])
    _check(annotations, predictions, num_keypoints=len(vector))
    scored = _suppress_duplicates(annotations, predictions, vector)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints; silence it
        truth = COCO()
        # Copies, because the evaluation writes into the records. They are numbered from 1: in
        # pycocotools a prediction that is matched with annotation 0 counts as unmatched. It goes by
        # `num_keypoints` and `iscrowd`, so both must be there and agree with what we count.
        copies = [
            annotation
            | {"id": number, "num_keypoints": joints.num_labelled(annotation)}
            | {"iscrowd": int(joints.is_crowd(annotation))}
            for number, annotation in enumerate(annotations["annotations"], start=1)
        ]
        truth.dataset = {**annotations, "annotations": copies}
        truth.createIndex()
        coco = COCOeval(truth, truth.loadRes(scored), "keypoints")
        coco.params.kpt_oks_sigmas = vector
        # Only images with animals: the others have neither predictions nor a part in a resample.
        coco.params.imgIds = sorted({a["image_id"] for a in copies})
        coco.evaluate()
    return coco


def _check(annotations: dict, predictions: list[dict], *, num_keypoints: int) -> None:
    """Raises ValueError that lists what is wrong with the predictions."""
    by_id = {annotation["id"]: annotation for annotation in annotations["annotations"]}
    images = {image["id"] for image in annotations["images"]}
    categories = {category["id"] for category in annotations["categories"]}
    times = Counter(row.get("id") for row in predictions)
    problems = [] if predictions else ["there are no predictions"]
    for position, row in enumerate(predictions):
        where = f"prediction {position} (annotation {row.get('id')}):"
        absent = {"id", "image_id", "category_id", "keypoints"} - row.keys()
        if absent:
            problems.append(f"{where} without {', '.join(sorted(absent))}")
            continue
        annotation = by_id.get(row["id"])
        if row["image_id"] not in images:
            problems.append(f"{where} unknown image {row['image_id']}")
        elif annotation is None:
            problems.append(f"{where} unknown annotation")
        elif annotation["image_id"] != row["image_id"]:
            problems.append(f"{where} in image {annotation['image_id']}, not {row['image_id']}")
        if times[row["id"]] > 1:
            problems.append(f"{where} one of {times[row['id']]} for this annotation")
        if row["category_id"] not in categories:
            problems.append(f"{where} unknown category {row['category_id']}")
        shape = np.shape(row["keypoints"])
        if shape != (num_keypoints, 3):
            problems.append(f"{where} keypoints of shape {shape}, not ({num_keypoints}, 3)")
        elif not np.all(np.isfinite(row["keypoints"])):
            problems.append(f"{where} keypoints that are not finite")
    if problems:
        more = f"\n... and {len(problems) - 20} more" if len(problems) > 20 else ""
        raise ValueError("cannot evaluate:\n" + "\n".join(problems[:20]) + more)


def _suppress_duplicates(
    annotations: dict, predictions: list[dict], sigmas: Float[np.ndarray, " k"]
) -> list[dict]:
    """COCO results, with scores, of what is left after OKS-NMS within each image.

    All species of an image compete; the area of a pose is that of the crop it was found in.
    """
    by_id = {annotation["id"]: annotation for annotation in annotations["annotations"]}
    sizes = {image["id"]: (image["width"], image["height"]) for image in annotations["images"]}
    by_image = defaultdict(list)
    for row in sorted(predictions, key=lambda row: row["id"]):
        by_image[row["image_id"]].append(row)

    results = []
    for image_id, rows in by_image.items():
        keypoints = np.array([row["keypoints"] for row in rows], float)
        scores = np.array([instance_score(animal) for animal in keypoints])
        boxes = [by_id[row["id"]]["bbox"] for row in rows]
        scales = [transforms.box_to_center_scale(box, sizes[image_id])[1] for box in boxes]
        areas = np.prod(scales, axis=1)
        for i in oks_nms(keypoints[..., :2], scores, areas, sigmas=sigmas):
            result = {"image_id": image_id, "category_id": rows[i]["category_id"]}
            result |= {"keypoints": keypoints[i].ravel().tolist(), "score": scores[i]}
            # By the size of this box an unmatched result counts against AP(M) or AP(L), as in
            # MMPose 1.3; without it pycocotools would take the extent of the predicted joints.
            results.append(result | {"bbox": list(boxes[i])})
    return results


def _per_species(annotations: dict, coco: COCOeval) -> dict:
    """AP and number of animals per species, and AP per family; only those with animals."""
    # precision: IoU threshold x recall x category x area range x most detections; -1 without truth
    precision = coco.eval["precision"][:, :, :, 0, 0]
    categories = {category["id"]: category for category in annotations["categories"]}
    labelled = [a for a in annotations["annotations"] if joints.is_animal(a)]
    counts = Counter(annotation["category_id"] for annotation in labelled)
    species, families = {}, defaultdict(list)
    for position, category_id in enumerate(coco.params.catIds):
        values = precision[:, :, position]
        if np.any(values < 0):
            continue
        category = categories[category_id]
        species[category["name"]] = float(values.mean())
        families[category["supercategory"]].append(species[category["name"]])
    return {
        "per_species": species,
        "per_family": {family: float(np.mean(values)) for family, values in families.items()},
        "num_animals": {categories[id]["name"]: count for id, count in sorted(counts.items())},
    }


def _nan_if_none(value: float) -> float:
    """pycocotools says -1 where there is nothing to measure; an average must not swallow that."""
    return float(value) if value > -1 else float("nan")


def format_ap(ap: float | None) -> str:
    """The AP with three decimals, or a dash where there was no animal to measure."""
    return "-" if ap is None else f"{ap:.3f}"
