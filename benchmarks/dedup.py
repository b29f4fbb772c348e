"""Recall, false alarms and time of finding planted duplicates.

    python benchmarks/dedup.py FOLDER [--search=60000]

FOLDER has photographs that are mostly different. Of each, copies are made as they go round in the
web: resized, stored anew, cut a little, brighter, darker, and several of these together. A copy is
found if it is near its original. "Cut by 5 %" takes 5 % of the width at the left and of the height
below, half as much at the right and above. False alarms are pairs of FOLDER's own photographs;
those that really are the same picture (hashes without a differing bit) are not counted.
"""

import argparse
import io
import time
from collections.abc import Callable
from pathlib import Path

import imagehash
import numpy as np
import tqdm
from PIL import Image, ImageEnhance

from tfds_ap10k import hashes


def stored(image: Image.Image, quality: int = 90) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def resized(image: Image.Image, factor: float) -> Image.Image:
    size = round(factor * image.width), round(factor * image.height)
    return image.resize(size, Image.Resampling.BICUBIC)


def cut(image: Image.Image, share: float) -> Image.Image:
    """Without `share` of the width at the left and of the height below, half as much elsewhere."""
    x, y = share * image.width, share * image.height
    return image.crop((round(x), round(y / 2), round(image.width - x / 2), round(image.height - y)))


def sides(image: Image.Image, *shares: float) -> Image.Image:
    """Without these shares at the left, above, at the right and below."""
    left, above, right, below = shares
    width, height = image.size
    corners = (left * width, above * height, (1 - right) * width, (1 - below) * height)
    return image.crop(tuple(map(round, corners)))


def at_random(image: Image.Image, most: float) -> Image.Image:
    """Without a share of its own on every side, the same for the same picture."""
    rng = np.random.default_rng(list(image.size) + list(image.resize((1, 1)).getpixel((0, 0))))
    return sides(image, *rng.uniform(0, most, 4))


def brighter(image: Image.Image, factor: float) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(factor)


COPIES: dict[str, Callable[[Image.Image], bytes]] = {
    "half the size": lambda i: stored(resized(i, 0.5)),
    "twice the size": lambda i: stored(resized(i, 2)),
    "JPEG quality 30": lambda i: stored(i, 30),
    "cut by 2 %": lambda i: stored(cut(i, 0.02)),
    "cut by 3 %": lambda i: stored(cut(i, 0.03)),
    "cut by 5 %": lambda i: stored(cut(i, 0.05)),
    "5 % on every side": lambda i: stored(sides(i, 0.05, 0.05, 0.05, 0.05)),
    "0 to 5 % on every side": lambda i: stored(at_random(i, 0.05)),
    "8 % below alone": lambda i: stored(sides(i, 0, 0, 0, 0.08)),
    "brighter by 20 %": lambda i: stored(brighter(i, 1.2)),
    "darker by 20 %": lambda i: stored(brighter(i, 0.8)),
    "2/3, cut 2 %, +15 %, q 50": lambda i: stored(brighter(resized(cut(i, 0.02), 2 / 3), 1.15), 50),
}
SMALL_BITS, LARGE_BITS = (2, 4, 6, 8, 10), (16, 24, 32, 40, 48)


def plant(files: list[Path]) -> dict[str, tuple[hashes.Fingerprints, np.ndarray]]:
    """Fingerprints, and hashes of 8 x 8 bits, of the photographs and of every kind of copy."""
    made = {name: ([], []) for name in ("original", *COPIES)}
    for path in tqdm.tqdm(files, "planting"):
        with Image.open(path) as image:
            image = image.convert("RGB")
        for name, (prints, small) in made.items():
            data = COPIES[name](image) if name in COPIES else path.read_bytes()
            prints.append(hashes.fingerprint(data))
            with Image.open(io.BytesIO(data)) as copy:
                small.append(imagehash.average_hash(copy, 8).hash.ravel())
    result = {}
    for name, (prints, small) in made.items():
        bits, pixels, sizes = zip(*prints, strict=True)
        fingerprints = hashes.Fingerprints(
            files,
            np.frombuffer(b"".join(bits), np.uint8).reshape(len(files), -1),
            np.frombuffer(b"".join(pixels), np.uint8).reshape(len(files), 32, 32),
            np.array(sizes),
        )
        result[name] = fingerprints, np.packbits(np.array(small), axis=1)
    return result


def all_near(packed: np.ndarray, bits: int) -> set[tuple[int, int]]:
    return {
        (int(a), int(b))
        for first, second, _ in hashes.similar_hashes(packed, packed, bits)
        for a, b in zip(first, second, strict=True)
        if a < b
    }


def recalls(distances: dict[str, np.ndarray], bits: int) -> str:
    return " | ".join(f"{100 * (distance <= bits).mean():.1f}" for distance in distances.values())


def distances(planted: dict, part: int) -> dict[str, np.ndarray]:
    """Differing bits of every copy from its original; `part` 0 is the hash of 16 x 16 bits."""

    def packed(name: str) -> np.ndarray:
        return planted[name][1] if part else planted[name][0].hashes

    return {
        name: np.bitwise_count(packed(name) ^ packed("original")).sum(axis=1) for name in COPIES
    }


def looked_closer(planted: dict, max_bits: int) -> tuple[str, set[tuple[int, int]]]:
    """Recalls in % of every kind of copy through all three steps, and the pairs of originals."""
    original = planted["original"][0]
    found = []
    for name in COPIES:
        pairs = hashes.near(original, planted[name][0], max_bits=max_bits)
        found.append(sum(pair.first == pair.second for pair in pairs) / len(original.files))
    own = {pair[:2] for pair in hashes.near(original, max_bits=max_bits)}
    return " | ".join(f"{100 * value:.1f}" for value in found), own


def many(found: hashes.Fingerprints, count: int) -> hashes.Fingerprints:
    """So many thumbnails and their hashes, made of upper and lower parts of real ones, some of them
    mirrored.
    """
    rng = np.random.default_rng(0)
    upper, lower = rng.integers(0, len(found.files), (2, count))
    row = 2 * rng.integers(4, 13, count)[:, None, None]
    above = np.arange(hashes.THUMBNAIL)[:, None] < row
    pixels = np.where(above, found.thumbnails[upper], found.thumbnails[lower])
    mirrored = rng.random(count) < 0.5
    pixels[mirrored] = pixels[mirrored, :, ::-1]
    small = hashes.reduced(pixels, 0)
    bits = (small > small.mean(axis=(1, 2), keepdims=True)).reshape(count, -1)
    return hashes.Fingerprints(
        [Path()] * count, np.packbits(bits, axis=1), pixels, found.sizes[upper]
    )


def neighbours(packed: np.ndarray) -> int:
    return sum(len(found[0]) for found in hashes.similar_hashes(packed, packed, hashes.MAX_BITS))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--search", type=int, default=60_000, help="hashes to be searched in")
    flags = parser.parse_args()
    files = hashes.find_photographs(flags.folder)
    planted = plant(files)
    original, small = planted["original"]
    same = all_near(original.hashes, 0)
    print(f"\n{len(files)} photographs, {len(same)} pairs of them the same to the bit\n")
    print(f"| search | {' | '.join(COPIES)} | false alarms |")
    print("|---" * (len(COPIES) + 2) + "|")
    for side, packed, part, choices in (
        (8, small, 1, SMALL_BITS),
        (16, original.hashes, 0, LARGE_BITS),
    ):
        apart = distances(planted, part)
        for bits in choices:
            alarms = len(all_near(packed, bits) - same)
            print(f"| {side} x {side}, <= {bits} bits | {recalls(apart, bits)} | {alarms:,} |")
    for bits in LARGE_BITS:
        share, own = looked_closer(planted, bits)
        print(f"| 16 x 16, <= {bits}, closer look | {share} | {len(own - same):,} |", flush=True)

    searched = many(original, flags.search)
    print(f"\n{flags.search:,} hashes, within {hashes.MAX_BITS} bits")
    for title, search in (
        ("whole with whole, no closer look", lambda: neighbours(searched.hashes)),
        ("all three steps", lambda: len(hashes.near(searched))),
    ):
        wall, cpu = time.perf_counter(), time.process_time()
        count = search()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        print(f"{title}: {count:,} pairs, {wall:.1f} s, {cpu:.1f} CPU-s", flush=True)


if __name__ == "__main__":
    main()
