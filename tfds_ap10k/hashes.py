"""Find photographs that are nearly the same, by average hash and then by correlation.

There are three steps, each stricter and each on the candidates of the one before:

1. average hashes of 16 x 16 bits that differ in at most MAX_BITS, as AP-10K's authors searched,
   of photographs of about the same shape;
2. grey thumbnails of 16 x 16 that correlate by COARSE or more, whatever their brightness;
3. thumbnails of 32 x 32, one of them moved and stretched a little so that it fits the other, that
   correlate by MIN_SIMILARITY or more.

One photograph may be cut from the other, so the first two steps also compare each whole photograph
with the inner parts of the others, without MARGIN on every side. That finds what lost up to a
twentieth on each side; of what lost more, on one side alone, about half.

The hash alone finds as many duplicates, but also, among some thousand photographs, thousands of
pairs that share nothing but a bright sky over a dark meadow. `benchmarks/dedup.py` measures both.
"""

import io
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, Self

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import ExifTags, Image, ImageOps

from tfds_ap10k import photographs, sources

HASH_SIDE = 16  # bits; with 8 the same recall costs three times as many false alarms
THUMBNAIL = 32  # pixels
MAX_BITS = 40  # of 256
MARGIN = 0.035  # of the width and height, between nothing and twice as much
COARSE = 0.87
MIN_SIMILARITY = 0.93
STEPS = 10  # of moving and stretching; with 20 nothing more is found
MAX_STRETCH = 0.15  # of the width or height: a moved thumbnail that needs more is another picture
MAX_ASPECT = 1.2  # ratio of the two aspect ratios; a slight crop changes it by less
ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
FORMAT = 1  # of the cache; raise it whenever hashes or thumbnails are made in another way
PACKAGES = ("imagehash", "faiss")  # of the extra `curate`
BATCH = 256  # photographs between two writes to the cache
QUERIES = 2048  # hashes looked up at a time: bounds the memory that their neighbours take
PAIRS = 4096  # whose grey values are compared at a time


class Fingerprints(NamedTuple):
    """Hashes, thumbnails and sizes of n photographs, in the order of `files`."""

    files: list[Path]
    hashes: UInt8[np.ndarray, "n 32"]
    thumbnails: UInt8[np.ndarray, "n 32 32"]
    sizes: Int[np.ndarray, "n 2"]  # width, height in pixels


class Pair(NamedTuple):
    first: int
    second: int
    bits: int  # in which the hashes differ, of 256
    similarity: float  # correlation of the thumbnails, 1 for the same picture


def limits() -> dict[str, float]:
    """The constants that a search's result depends on, besides the photographs."""
    names = ("FORMAT", "MAX_BITS", "MARGIN", "COARSE")
    names += ("MIN_SIMILARITY", "STEPS", "MAX_STRETCH", "MAX_ASPECT")
    return {name: globals()[name] for name in names}


def find_photographs(folder: Path) -> list[Path]:
    """Everything in a folder, and the folders in it, that is called like a photograph; sorted."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in ENDINGS and path.is_file() and not path.name.startswith(".")
    )


def fingerprint(data: bytes) -> tuple[bytes, bytes, tuple[int, int]]:
    """Hash, thumbnail and (width, height) of an encoded photograph, turned upright.

    Raises ValueError with the reason if there is none.
    """
    import imagehash  # of the extra `curate`; everything else here works without

    photographs.inspect(data)
    try:
        with Image.open(io.BytesIO(data), formats=photographs.FORMATS) as image:
            size = image.size
            if image.getexif().get(ExifTags.Base.Orientation, 1) > 4:
                size = size[::-1]  # stored lying on its side
            # JPEG can be decoded at an eighth of its size in a fraction of the time.
            image.draft("L", (8 * HASH_SIDE, 8 * HASH_SIDE))
            upright = ImageOps.exif_transpose(image).convert("L")
        bits = imagehash.average_hash(upright, HASH_SIDE).hash
        thumbnail = upright.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    except Exception as error:  # on broken bytes Pillow raises nearly every kind of exception
        raise ValueError("not a readable photograph") from error
    return np.packbits(bits.ravel()).tobytes(), thumbnail.tobytes(), size


def fingerprints(
    files: Sequence[Path],
    cache: Path | None = None,
    *,
    progress: Callable[[Sequence[Path]], Iterable[Path]] = iter,
) -> tuple[Fingerprints, list[tuple[Path, str]]]:
    """Fingerprints of all readable photographs, and the unreadable ones with the reason.

    A file whose size and time have not changed comes from the cache. The cache is written during
    the work, so that an interrupted run continues where it was.
    """
    known = _Cache(cache)
    found, unreadable = [], []
    try:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            batch = []
            for path in progress(files):
                batch.append(path)
                if len(batch) == BATCH:
                    found += pool.map(known.get_or_make, batch)
                    known.save()
                    batch = []
            found += pool.map(known.get_or_make, batch)
            known.save()
    finally:
        known.close()
    for path, result in zip(files, found, strict=True):
        if isinstance(result, str):
            unreadable.append((path, result))
    sound = [
        (path, *result)
        for path, result in zip(files, found, strict=True)
        if not isinstance(result, str)
    ]
    return together([path for path, *_ in sound], [row[1:] for row in sound]), unreadable


def together(
    files: Sequence[Path], made: Iterable[tuple[bytes, bytes, tuple[int, int]]]
) -> Fingerprints:
    """Collect the results of `fingerprint` in arrays."""
    rows = list(made)
    bits, pixels = (b"".join(row[part] for row in rows) for part in (0, 1))
    return Fingerprints(
        list(files),
        np.frombuffer(bits, np.uint8).reshape(-1, HASH_SIDE**2 // 8),
        np.frombuffer(pixels, np.uint8).reshape(-1, THUMBNAIL, THUMBNAIL),
        np.array([row[2] for row in rows], np.int64).reshape(-1, 2),
    )


class _Cache:
    """Fingerprints by path, size and time of the file, in an SQLite file (or nowhere)."""

    def __init__(self, file: Path | None):
        self.database = sqlite3.connect(file or ":memory:", check_same_thread=False)
        self.database.execute(
            "CREATE TABLE IF NOT EXISTS photographs (path TEXT PRIMARY KEY, stamp TEXT, hash BLOB, "
            "thumbnail BLOB, width INTEGER, height INTEGER)"
        )
        rows = self.database.execute("SELECT * FROM photographs")
        self.known = {row[0]: row[1:] for row in rows}
        self.new = {}

    def get_or_make(self, path: Path) -> tuple[bytes, bytes, tuple[int, int]] | str:
        """The fingerprint of a photograph, or why there is none."""
        try:
            status = path.stat()
            stamp = f"{FORMAT} {status.st_size} {status.st_mtime_ns}"
            key = str(path.absolute())
            old = self.known.get(key)
            if old and old[0] == stamp:
                return old[1], old[2], (old[3], old[4])
            result = fingerprint(sources.read(path, max_bytes=photographs.MAX_BYTES))
        except (ValueError, OSError) as error:
            return str(error)
        self.new[key] = (key, stamp, *result[:2], *result[2])
        return result

    def save(self) -> None:
        with self.database:  # all of them or none
            self.database.executemany(
                "INSERT OR REPLACE INTO photographs VALUES (?, ?, ?, ?, ?, ?)", self.new.values()
            )
        self.new = {}

    def close(self) -> None:
        self.database.close()


def near(
    left: Fingerprints,
    right: Fingerprints | None = None,
    *,
    max_bits: int = MAX_BITS,
    min_similarity: float = MIN_SIMILARITY,
) -> list[Pair]:
    """Pairs of the same picture, within `left`, or of one of `left` and one of `right`.

    Sorted by their places in `left`, then in `right`; within `left`, first < second.
    """
    other = left if right is None else right
    views, other_views = View.of(left), View.of(other)
    searches = [(left.hashes, other.hashes), (views.inner_hashes, other.hashes)]
    if right is not None:  # within `left` the second search goes through both orders
        searches.append((left.hashes, other_views.inner_hashes))
    candidates = {}
    for number, (queries, searched) in enumerate(searches):
        for first, second, bits in similar_hashes(queries, searched, max_bits):
            wanted = np.abs(views.shape[first] - other_views.shape[second]) <= np.log(MAX_ASPECT)
            if right is None:
                wanted &= first < second if number == 0 else first != second
            found = np.stack([first, second, bits], axis=1)[wanted]
            if right is None:
                found[:, :2].sort(axis=1)
            likeness = correlations(views, other_views, found)
            close = likeness.max(axis=1) >= COARSE
            for (a, b, distance), row in zip(
                found[close].tolist(), likeness[close].tolist(), strict=True
            ):
                known = candidates.get((a, b), (distance,))
                candidates[a, b] = min(distance, known[0]), row

    def compare(candidate: tuple[tuple[int, int], tuple[int, list[float]]]) -> Pair:
        (a, b), (distance, likeness) = candidate
        return Pair(a, b, distance, similarity(left.thumbnails[a], other.thumbnails[b], likeness))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        pairs = list(pool.map(compare, candidates.items()))
    return sorted(pair for pair in pairs if pair.similarity >= min_similarity)


class View(NamedTuple):
    """Arrays that the first two steps compare: n photographs, whole and without their margins."""

    inner_hashes: UInt8[np.ndarray, "n 32"]
    whole: Float[np.ndarray, "n 256"]  # grey values with mean 0 and norm 1: products correlate
    inner: Float[np.ndarray, "n 256"]
    shape: Float[np.ndarray, " n"]  # logarithm of width / height

    @classmethod
    def of(cls, found: Fingerprints) -> Self:
        inner = reduced(found.thumbnails, MARGIN)
        bits = inner > inner.mean(axis=(1, 2), keepdims=True)
        return cls(
            np.packbits(bits.reshape(len(inner), -1), axis=1),
            *(_normalized(part) for part in (reduced(found.thumbnails, 0), inner)),
            np.log(found.sizes[:, 0] / found.sizes[:, 1]),
        )


def reduced(
    thumbnails: UInt8[np.ndarray, "n 32 32"], margin: float
) -> Float[np.ndarray, "n 16 16"]:
    """The mean grey values of 16 x 16 equal parts of what is left without the margin."""
    edges = THUMBNAIL * np.linspace(margin, 1 - margin, HASH_SIDE + 1)
    pixels = np.arange(THUMBNAIL)
    # the share of every pixel that lies in every part
    inside = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    weights = np.maximum(inside, 0).astype(np.float32)
    weights /= weights.sum(axis=1, keepdims=True)
    return weights @ thumbnails.astype(np.float32) @ weights.T


def correlations(
    left: View, right: View, pairs: Int[np.ndarray, "p 3"]
) -> Float[np.ndarray, "p 3"]:
    """Correlations of each pair: whole with whole, inner part with whole, whole with inner part."""

    def of_part(start: int) -> Float[np.ndarray, "p 3"]:
        first, second = pairs[start : start + PAIRS, :2].T
        whole, other_whole = left.whole[first], right.whole[second]
        sides = (whole, other_whole), (left.inner[first], other_whole), (whole, right.inner[second])
        return np.stack([np.einsum("pi,pi->p", a, b) for a, b in sides], axis=1)

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # NumPy releases the GIL here
        rows = list(pool.map(of_part, range(0, len(pairs), PAIRS)))
    return np.concatenate(rows) if rows else np.zeros((0, 3), np.float32)


def similar_hashes(
    left: UInt8[np.ndarray, "n b"], right: UInt8[np.ndarray, "m b"], max_bits: int
) -> Iterator[tuple[Int[np.ndarray, " p"], Int[np.ndarray, " p"], Int[np.ndarray, " p"]]]:
    """Places in `left`, places in `right` and differing bits of all pairs of similar hashes.

    A scan with the processor's bit counting: on these hashes, of which many are alike, indexes of
    parts of the hash (faiss's multi-hash) were 30 times slower and found no more.
    """
    import faiss  # of the extra `curate`

    index = faiss.IndexBinaryFlat(8 * right.shape[1])
    index.add(np.ascontiguousarray(right))
    for start in range(0, len(left), QUERIES):
        queries = np.ascontiguousarray(left[start : start + QUERIES])
        limits, bits, found = index.range_search(queries, max_bits + 1)  # nearer than, there
        first = start + np.repeat(np.arange(len(queries)), np.diff(limits.astype(np.int64)))
        yield first, found, bits.astype(np.int64)


def similarity(
    first: UInt8[np.ndarray, "h w"], second: UInt8[np.ndarray, "h w"], likeness: Sequence[float]
) -> float:
    """Correlation of two thumbnails after one has been moved onto the other.

    It is never less than their correlation unmoved. `likeness` is their row of `correlations`; it
    says which of the two may be cut from the other.
    """
    pixels = np.stack([first, second]).reshape(2, -1).astype(np.float32)
    still = float(np.prod(_normalized(pixels), axis=0).sum())
    as_they_are, first_larger, second_larger = likeness
    # The whole picture cannot be fitted onto what was cut from it, so the part is the target.
    part, whole = (second, first) if first_larger >= second_larger else (first, second)
    margin = 0 if as_they_are >= max(first_larger, second_larger) else MARGIN
    return max(still, _moved(part, whole, margin))


def _moved(
    target: UInt8[np.ndarray, "h w"], image: UInt8[np.ndarray, "h w"], margin: float
) -> float:
    """Correlation of the target with the image, which is moved and stretched to fit.

    The fit starts from the image's inner part.
    """
    enough = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, STEPS, 1e-3)
    zoom = 1 - 2 * margin
    start = zoom * np.eye(2, 3, dtype=np.float32)
    start[:, 2] = margin * THUMBNAIL + (zoom - 1) / 2  # the middle of a pixel is at whole numbers
    try:
        value, warp = cv2.findTransformECC(target, image, start, cv2.MOTION_AFFINE, enough, None, 3)
    except cv2.error:  # nothing to hold on to in one of them
        return -1.0
    return value if np.abs(warp[:, :2] - np.eye(2)).max() < MAX_STRETCH else -1.0


def _normalized(pixels: Float[np.ndarray, "n *p"]) -> Float[np.ndarray, "n q"]:
    rows = pixels.reshape(len(pixels), -1)
    rows = rows - rows.mean(axis=1, keepdims=True)
    # A picture of one colour correlates with nothing; its norm would be 0.
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-3)
