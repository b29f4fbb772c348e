"""Which photographs two built data sets share: the check that a test across data sets needs.

AP-10K holds photographs that are in Animal-Pose too. Who trained on one of them and tests on the
other (Table 11) has seen part of the test; how large a part, `between` counts on the photographs of
the built data sets themselves. It needs the extra `curate`, and no TensorFlow.
"""

import importlib.util
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import tensorflow_datasets as tfds
import tqdm

from ap10k_jax import data, rundir
from tfds_ap10k import hashes

BATCH = 256  # photographs in memory at a time
INSTALL = 'pip install "ap10k_jax[curate]"'


class Photograph(NamedTuple):
    """A photograph of a built data set."""

    split: str
    image_id: int
    file_name: str


class Match(NamedTuple):
    """The same picture in two data sets."""

    first: Photograph
    second: Photograph
    bits: int  # in which the average hashes differ, of 256
    similarity: float


class NotChecked(Exception):
    """Why two data sets were not compared; for the reader of a report."""


def between(first: str, second: str, data_dir: str | Path | None, cache: Path) -> list[Match]:
    """The photographs that two built data sets, as ap10k/split1, share.

    They are searched once, and again when a data set or the search has changed: the result is kept
    in the folder `cache`, for either order. Raises NotChecked if a data set is not there or the
    extra is missing.
    """
    if first > second:
        return [
            match._replace(first=match.second, second=match.first)
            for match in between(second, first, data_dir, cache)
        ]
    builders = {}
    for name in (first, second):
        builders[name] = data.built(name, data_dir)
        if not builders[name].info.initialized:
            raise NotChecked(f"{name} is not built here")
    search = {
        "fingerprints": {
            name: dict(builder.info.metadata["fingerprints"]) for name, builder in builders.items()
        },
        "limits": hashes.limits(),
    }
    path = cache / f"{first}-{second}.json".replace("/", "_")
    known = json.loads(path.read_text()) if path.exists() else {}
    if {name: known.get(name) for name in search} != search:
        lacking = [name for name in hashes.PACKAGES if not importlib.util.find_spec(name)]
        if lacking:  # said before a minute of hashing, not after
            raise NotChecked(f"{' and '.join(lacking)} must be installed: {INSTALL}")
        matches = _search(builders[first], builders[second])
        known = search | {"matches": matches}
        cache.mkdir(parents=True, exist_ok=True)
        rundir.write_json(path, known)
    return [
        Match(Photograph(*a), Photograph(*b), bits, similarity)
        for a, b, bits, similarity in known["matches"]
    ]


def _search(first: tfds.core.DatasetBuilder, second: tfds.core.DatasetBuilder) -> list[Match]:
    places, prints = zip(*map(_fingerprints, (first, second)), strict=True)
    return [
        Match(places[0][pair.first], places[1][pair.second], pair.bits, round(pair.similarity, 4))
        for pair in hashes.near(*prints)
    ]


def _fingerprints(
    builder: tfds.core.DatasetBuilder,
) -> tuple[list[Photograph], hashes.Fingerprints]:
    """Of every photograph of a data set, in the same order. The builder has refused unreadable
    ones, so that a ValueError here means that the files have been damaged since.
    """
    places, made = [], []
    with ThreadPoolExecutor() as pool:
        for batch in _batches(builder):
            places += [Photograph(split, *record[:2]) for split, *record in batch]
            made += pool.map(hashes.fingerprint, [record[-1] for record in batch])
    return places, hashes.together([Path(place.file_name) for place in places], made)


def _batches(builder: tfds.core.DatasetBuilder) -> Iterator[list[tuple[str, int, str, bytes]]]:
    """Split, id, name and stored bytes of all photographs, so many at a time."""
    batch = []
    for split, info in builder.info.splits.items():
        source = builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
        title = f"hashing {builder.info.full_name.rpartition('/')[0]} {split}"
        for i in tqdm.trange(info.num_examples, desc=title, unit=" photographs"):
            record = source[i]
            name = record["file_name"]
            name = name.decode() if isinstance(name, bytes) else name
            batch.append((split, int(record["image_id"]), name, record["image"]))
            if len(batch) == BATCH:
                yield batch
                batch = []
    yield batch
