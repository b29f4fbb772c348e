"""Confidence intervals of AP over images of the same kind, by the bootstrap.

Letters: r resamples, i images, n predictions, t thresholds of OKS.
"""

from collections import defaultdict
from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float, Int

from ap10k_jax import metrics

RECALLS = np.linspace(0, 1, 101)  # where pycocotools reads the precision


def intervals(
    annotations: dict,
    predictions: list[dict],
    *,
    sigmas: str = "corrected",
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict:
    """Intervals of AP from drawing as many images anew, with replacement: what other images of the
    same kind could have given. They leave out what another training run could have.

    Every resample is scored as by `metrics.evaluate`, an image drawn twice counting twice; what a
    prediction was matched with stays the same, so nothing is matched again. Of the resamples' APs
    the quantiles at (1 -+ level) / 2 are returned as [low, high]: `AP`, and `per_species` and
    `per_family` by name. A resample without any animal of a species has no AP of that species, and
    its mean is over the others.
    """
    coco = metrics.compare(annotations, predictions, sigmas)
    categories = {category["id"]: category for category in annotations["categories"]}
    images = len(coco.params.imgIds)
    rng = np.random.default_rng(seed)
    times = rng.multinomial(images, np.full(images, 1 / images), size=resamples)
    species = {
        categories[id]["name"]: _resampled(times, *matches) for id, matches in _matches(coco)
    }
    members = defaultdict(list)
    for category in categories.values():
        if category["name"] in species:
            members[category["supercategory"]].append(species[category["name"]])
    families = {family: _mean_of_known(values) for family, values in members.items()}
    tail = (1 - level) / 2

    def interval(values: Float[np.ndarray, " n"]) -> list[float]:
        return np.nanquantile(values, (tail, 1 - tail)).tolist()

    return {
        "AP": interval(_mean_of_known(list(species.values()))),
        "per_species": {name: interval(values) for name, values in species.items()},
        "per_family": {name: interval(values) for name, values in families.items()},
    }


def _matches(coco: metrics.COCOeval) -> Iterator[tuple[int, tuple]]:
    """For each category with animals: its id, and what `_resampled` takes of it."""
    images, areas = len(coco.params.imgIds), len(coco.params.areaRng)
    for position, category_id in enumerate(coco.params.catIds):
        start = position * areas * images  # the first area range is that of all sizes
        found = [
            (i, entry)
            for i, entry in enumerate(coco.evalImgs[start : start + images])
            if entry is not None
        ]
        animals = np.zeros(images, int)
        for i, entry in found:
            animals[i] = len(entry["gtIds"]) - np.sum(entry["gtIgnore"])
        if not animals.any():
            continue
        image = np.concatenate([np.full(len(entry["dtIds"]), i) for i, entry in found])
        scores = np.concatenate([entry["dtScores"] for _, entry in found])
        order = np.argsort(-scores, kind="stable")
        counted = ~np.concatenate([entry["dtIgnore"] for _, entry in found], axis=1)
        matched = np.concatenate([entry["dtMatches"] for _, entry in found], axis=1) > 0
        hits, misses = matched & counted, ~matched & counted
        yield category_id, (animals, image[order], hits[:, order], misses[:, order])


def _resampled(
    times: Int[np.ndarray, "r i"],
    animals: Int[np.ndarray, " i"],
    image: Int[np.ndarray, " n"],
    hits: Bool[np.ndarray, "t n"],
    misses: Bool[np.ndarray, "t n"],
) -> Float[np.ndarray, " r"]:
    """AP of one category in r resamples that take image i times[:, i] times; nan without animals.

    Predictions are in falling order of score; `animals` are those to be found in each image.
    """
    if not len(image):
        return np.where(times @ animals > 0, 0.0, np.nan)
    average = np.empty(len(times))
    size = max(1, 2_000_000 // hits.size)  # resamples at once, for the memory's sake
    for start in range(0, len(times), size):
        part = times[start : start + size]
        weight = part[:, None, image]
        total = (part @ animals)[:, None, None]
        found = np.cumsum(weight * hits, axis=-1)
        wrong = np.cumsum(weight * misses, axis=-1)
        precision = found / np.maximum(found + wrong, 1)
        # as pycocotools: the best precision at this recall or a higher one, at 101 recalls
        envelope = np.maximum.accumulate(precision[..., ::-1], axis=-1)[..., ::-1]
        reached = np.searchsorted(RECALLS, found / np.maximum(total, 1), side="right")
        area = np.sum(np.diff(reached, axis=-1, prepend=0) * envelope, axis=-1) / len(RECALLS)
        average[start : start + size] = np.where(total[:, 0, 0] > 0, area.mean(axis=-1), np.nan)
    return average


def _mean_of_known(values: list[Float[np.ndarray, " r"]]) -> Float[np.ndarray, " r"]:
    """The mean over the list without its nans; nan where there is nothing else."""
    known = ~np.isnan(values)
    return np.where(
        known.any(axis=0), np.nansum(values, axis=0) / np.maximum(known.sum(axis=0), 1), np.nan
    )
