"""Cost of a training crop in CPU-milliseconds, ours beside the reference's, stage by stage.

    python benchmarks/input.py [COCO_FILE] [--copies=50] [--rounds=7] [--image_size=256]

COCO_FILE is an annotation file of AP-10K with its photographs beside it or in ../data. Without one
our own drawings are used, enlarged to AP-10K's median size of 1024x683 and made as hard to decode
as photographs by noise, so that anybody can repeat it. They are built into a data set of `copies`
records each.

The reference is MMPose 0.x's order of work, written here from its description: OpenCV decodes the
whole photograph to BGR, it is converted, mirrored, warped, normalised to float32 with the channels
first, and the heatmaps are drawn, all on the host. Ours leaves normalising and heatmaps to the
device, so the comparison is given with them and without. Views are the same for all. Everything
runs in turns, `rounds` times over the animals, on one thread; medians. At last the whole loader,
with its threads.
"""

import argparse
import dataclasses
import functools
import json
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from ap10k_jax import augmentation, inference, transforms
from ap10k_jax.augmentation import Augmentation, frame
from ap10k_jax.data import batches, decoded_cache, patches
from ap10k_jax.data.animals import Animals, decode_example
from tfds_ap10k import build, synthetic

AUGMENTATION = Augmentation()
MEDIAN_SIZE = (1024, 683)  # width and height of AP-10K's photographs


def write_copies(coco_file: Path, folder: Path, copies: int) -> None:
    """An AP-10K of the file's images, `copies` of each in `train` and one in the other splits."""
    coco = json.loads(coco_file.read_text())
    places = (coco_file.parent, coco_file.parents[1] / "data")
    (folder / "data").mkdir(parents=True)
    (folder / "annotations").mkdir()
    number = 0
    for part, count in {"train": copies, "val": 1, "test": 1}.items():
        images, annotations = [], []
        for _ in range(count):
            for image in coco["images"]:
                number += 1
                name = f"{number:012d}.jpg"
                found = next(p for p in places if (p / image["file_name"]).is_file())
                shutil.copyfile(found / image["file_name"], folder / "data" / name)
                images.append(image | {"id": number, "file_name": name})
                annotations += [
                    animal | {"image_id": number, "id": 1000 * number + i}
                    for i, animal in enumerate(coco["annotations"])
                    if animal["image_id"] == image["id"]
                ]
        content = coco | {"images": images, "annotations": annotations}
        (folder / "annotations" / f"ap10k-{part}-split1.json").write_text(json.dumps(content))


def enlarge_drawings(folder: Path, count: int = 16) -> Path:
    """An annotation file of drawings as large, and as noisy, as AP-10K's photographs."""
    drawn = synthetic.generate(folder / "drawn", images=48)
    coco = json.loads((drawn / "annotations" / "ap10k-train-split1.json").read_text())
    rng = np.random.default_rng(0)
    (folder / "data").mkdir()
    coco["images"] = coco["images"][:count]
    kept = {image["id"]: image for image in coco["images"]}
    coco["annotations"] = [a for a in coco["annotations"] if a["image_id"] in kept]
    for image in coco["images"]:
        picture = cv2.imread(str(drawn / "data" / image["file_name"]))
        large = cv2.resize(picture, MEDIAN_SIZE, interpolation=cv2.INTER_CUBIC)
        noise = rng.normal(0, 6, large.shape)
        large = np.clip(large + noise, 0, 255).astype(np.uint8)
        quality = [cv2.IMWRITE_JPEG_QUALITY, 90]
        cv2.imwrite(str(folder / "data" / image["file_name"]), large, quality)
        image["zoom"] = np.divide(MEDIAN_SIZE, picture.shape[1::-1]).tolist()
        image["width"], image["height"] = MEDIAN_SIZE
    for animal in coco["annotations"]:
        zoom = np.array(kept[animal["image_id"]]["zoom"])
        animal["bbox"] = (np.reshape(animal["bbox"], (2, 2)) * zoom).ravel().tolist()
        animal["area"] = animal["bbox"][2] * animal["bbox"][3]
        points = np.reshape(animal["keypoints"], (-1, 3)) * [*zoom, 1]
        animal["keypoints"] = np.rint(points).astype(int).ravel().tolist()
    for image in coco["images"]:
        del image["zoom"]
    (folder / "annotations").mkdir()
    path = folder / "annotations" / "enlarged.json"
    path.write_text(json.dumps(coco))
    return path


@dataclasses.dataclass
class Clock:
    """CPU-seconds by (who, stage) of one round."""

    spent: dict = dataclasses.field(default_factory=lambda: defaultdict(float))

    def __call__(self, who: str, stage: str, function: Callable, *arguments):
        start = time.thread_time()
        result = function(*arguments)
        self.spent[who, stage] += time.thread_time() - start
        return result


def reference(clock: Clock, path: Path, labels: dict, draw: Callable, size: int) -> np.ndarray:
    """One animal as MMPose 0.x makes it; the RGB crop before normalising."""
    who = "reference"
    stored = clock(who, "read", path.read_bytes)
    bgr = clock(who, "decode", cv2.imdecode, np.frombuffer(stored, np.uint8), cv2.IMREAD_COLOR)
    rgb = clock(who, "convert", cv2.cvtColor, bgr, cv2.COLOR_BGR2RGB)
    view = clock(who, "draw the view", draw, labels, rgb.shape[1::-1])

    def warp() -> np.ndarray:
        image, matrix = rgb, view["matrix"].astype(float)
        if np.linalg.det(matrix[:, :2]) < 0:
            image = np.ascontiguousarray(rgb[:, ::-1])
            matrix = transforms.compose(np.array([[-1.0, 0, rgb.shape[1] - 1], [0, 1, 0]]), matrix)
        to_crop = transforms.invert_affine(matrix)
        return cv2.warpAffine(image, to_crop, (size, size), flags=cv2.INTER_LINEAR)

    def normalise() -> np.ndarray:
        scaled = crop.astype(np.float32) / 255
        scaled -= np.float32(inference.MEAN)
        scaled /= np.float32(inference.STD)
        return np.ascontiguousarray(scaled.transpose(2, 0, 1))

    crop = clock(who, "mirror and warp", warp)
    clock(who, "normalise", normalise)
    clock(who, "heatmaps", heatmaps, view["keypoints"], view["weights"], size // 4)
    return crop


def heatmaps(points: np.ndarray, weights: np.ndarray, side: int) -> np.ndarray:
    """(k, side, side) Gaussians of sigma 2, peak 1, cut to 13x13 cells."""
    maps = np.zeros((len(points), side, side), np.float32)
    offsets = np.arange(13) - 6
    patch = np.exp(-(offsets[:, None] ** 2 + offsets[None] ** 2) / 8)
    for one, point, weight in zip(maps, points, weights, strict=True):
        x, y = (int(v / 4 + 0.5) for v in point)
        if not weight or min(x, y) < -6 or max(x, y) >= side + 6:
            continue
        left, top, right, bottom = max(x - 6, 0), max(y - 6, 0), min(x + 7, side), min(y + 7, side)
        one[top:bottom, left:right] = patch[
            top - y + 6 : bottom - y + 6, left - x + 6 : right - x + 6
        ]
    return maps


def measure(
    animals: Animals,
    raw: Path,
    pixels: decoded_cache.DecodedPhotographs,
    small: patches.Patches,
    size: int,
    rounds: int,
) -> tuple[list[dict], float]:
    """CPU-seconds of every stage by round, and how far our crops are from the reference's."""
    options = {"augmentation": AUGMENTATION, "keypoint_set": animals.keypoint_set}
    differences, by_round = [], []
    for number in range(rounds + 1):  # the first warms up
        clock = Clock()
        for i in range(len(animals)):
            labels, image = animals.labels(i), animals.image(i)

            def draw(labels, image_size, seed=(number, i)):
                rng = np.random.default_rng(seed)
                square = (size, size)
                return frame(labels, rng, image_size=image_size, size=square, **options)

            path = raw / "data" / image["file_name"]
            crop = reference(clock, path, labels, draw, size)

            rng = functools.partial(np.random.default_rng, (number, i))
            example = clock("stream", "read", animals.__getitem__, i)
            opened = clock("stream", "decode", decode_example, example)
            ours = functools.partial(augmentation.sample, size=(size, size), **options)
            sample = clock("stream", "draw the view and cut", ours, opened, rng())
            example = clock("decoded", "read", pixels.__getitem__, i)
            again = clock("decoded", "draw the view and cut", ours, example, rng())
            np.testing.assert_array_equal(again["image"], sample["image"])
            differences.append(np.abs(sample["image"].astype(int) - crop).mean())

            view = functools.partial(small.random_crop, image_size=size, augmentation=AUGMENTATION)
            labels = clock("device", "read", small.__getitem__, i)
            clock("device", "draw the view", view, labels, rng())

            # what decoding less would be worth
            stored = np.frombuffer(path.read_bytes(), np.uint8)
            clock("halved", "decode at 1/2", cv2.imdecode, stored, cv2.IMREAD_REDUCED_COLOR_2)
            clock("halved", "decode at 1/4", cv2.imdecode, stored, cv2.IMREAD_REDUCED_COLOR_4)
        by_round.append(clock.spent)
    return by_round[1:], float(np.mean(differences))


def report(by_round: list[dict], count: int) -> None:
    """The table of stages, and of sums beside the reference's."""
    stages = {key: 1000 * np.median([r[key] for r in by_round]) / count for key in by_round[0]}
    print("| who | stage | CPU-ms / image |\n|---|---|---|")
    for (who, stage), value in stages.items():
        print(f"| {who} | {stage} | {value:.3f} |")

    def sums(who: str, without: tuple[str, ...] = ()) -> np.ndarray:
        """CPU-ms of an image by round."""
        keys = [key for key in stages if key[0] == who and key[1] not in without]
        return 1000 * np.array([sum(r[key] for key in keys) for r in by_round]) / count

    left_to_device = ("normalise", "heatmaps")
    whole, crop_only = sums("reference"), sums("reference", left_to_device)
    print(
        "\n| input | images / CPU-s | x reference | x reference's crops alone |\n|---|---|---|---|"
    )
    print(f"| reference | {1000 / np.median(whole):,.0f} | 1 | |")
    print(f"| reference, crops alone | {1000 / np.median(crop_only):,.0f} | | 1 |")
    for who in ("stream", "decoded", "device"):
        ours = sums(who)
        ratios = [np.median(other / ours) for other in (whole, crop_only)]
        print(f"| {who} | {1000 / np.median(ours):,.0f} | {ratios[0]:.2f} | {ratios[1]:.2f} |")


def whole_loader(
    animals: Animals,
    pixels: decoded_cache.DecodedPhotographs,
    small: patches.Patches,
    size: int,
    seconds: float,
) -> None:
    """The loader as training uses it: images a CPU-second of all threads, and a second."""
    print("\n| loader | threads | images / CPU-s | images / s |\n|---|---|---|---|")
    sources = {"stream": animals, "decoded": pixels, "device": small}
    for threads in (1, 2, 4):
        for name, source in sources.items():
            options = {"batch_size": 50, "epochs": 10_000, "seed": 0}
            loader = batches.train_batches(source, image_size=size, threads=threads, **options)
            count, cpu, wall = 0, time.process_time(), time.perf_counter()
            for batch in loader:
                count += len(batch["index"])
                if time.perf_counter() - wall > seconds:
                    break
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
            print(f"| {name} | {threads} | {count / cpu:,.0f} | {count / wall:,.0f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("coco_file", type=Path, nargs="?")
    parser.add_argument("--copies", type=int, help="of each image; unset: about 100 in all")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--image_size", type=int, default=256)
    flags = parser.parse_args()

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        coco_file = flags.coco_file or enlarge_drawings(folder)
        images = json.loads(coco_file.read_text())["images"]
        write_copies(coco_file, folder / "raw", flags.copies or max(1, 100 // len(images)))
        build.build("split1", manual_dir=folder / "raw", data_dir=folder)
        animals = Animals.open("ap10k/split1", "train", data_dir=folder)
        sizes = [p.stat().st_size for p in (folder / "raw" / "data").iterdir()]
        print(f"{len(animals)} animals; a JPEG has {np.mean(sizes) / 1000:.0f} kB on average\n")

        small = patches.Patches(
            animals, folder / "patches", image_size=flags.image_size, augmentation=AUGMENTATION
        )
        cpu = time.process_time()
        small.fill(threads=2)
        cpu = time.process_time() - cpu
        cost = f"{1000 * cpu / len(animals):.1f} CPU-ms an animal"
        print(f"Patches: {small.bytes / len(animals) / 1e6:.2f} MB and, once, {cost}.\n")

        pixels = decoded_cache.DecodedPhotographs(animals, folder / "photographs")
        cpu = time.process_time()
        for i in range(len(animals)):
            pixels[i]
        cpu = time.process_time() - cpu
        cost = f"{1000 * cpu / len(animals):.1f} CPU-ms an animal"
        print(f"Pixels: {pixels.bytes / len(animals) / 1e6:.2f} MB and, once, {cost}.\n")

        by_round, difference = measure(
            animals, folder / "raw", pixels, small, flags.image_size, flags.rounds
        )
        report(by_round, len(animals))
        print(
            f"\nStreamed crops differ from the reference's by {difference:.3f} of 255 on average."
        )
        whole_loader(animals, pixels, small, flags.image_size, seconds=5)


if __name__ == "__main__":
    main()
