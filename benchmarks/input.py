"""What the input pipeline costs, in images per CPU-second, stage by stage, on real photographs.

    python benchmarks/input.py COCO_FILE [--copies=50] [--image_size=256]

COCO_FILE is an annotation file of AP-10K with its photographs beside it or in ../data. They are
built into a data set of `copies` records each; every stage then runs alone, on one thread, over all
of its animals, and at last the whole loader with its threads. CPU-seconds are those of all threads.
"""

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from ap10k_jax import data, transforms
from tfds_ap10k import build


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


def measure(name: str, function: Callable, items: Iterable) -> list:
    """The function's results; prints how many items it did in a CPU-second."""
    items = list(items)
    cpu, wall = time.process_time(), time.perf_counter()
    results = [function(item) for item in items]
    report(name, len(items), time.process_time() - cpu, time.perf_counter() - wall)
    return results


def report(name: str, count: int, cpu: float, wall: float) -> None:
    print(
        f"| {name} | {count / cpu:,.0f} | {1000 * cpu / count:.2f} | {count / wall:,.0f} |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("coco_file", type=Path)
    parser.add_argument("--copies", type=int, default=50)
    parser.add_argument("--image_size", type=int, default=256)
    flags = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        write_copies(flags.coco_file, Path(folder, "raw"), flags.copies)
        build.build("split1", manual_dir=Path(folder, "raw"), data_dir=folder)
        animals = data.Animals.open("ap10k/split1", "train", data_dir=folder)
        size = (flags.image_size,) * 2
        rng = np.random.default_rng(0)
        print("| stage | images / CPU-s | CPU-ms / image | images / s |\n|---|---|---|---|")
        examples = measure("read the record", animals.__getitem__, range(len(animals)))
        decoded = measure("decode the JPEG", data.decoded, examples)
        crops = measure(
            "augment and crop",
            lambda example: transforms.sample(example, rng, size=size),
            decoded,
        )
        batches = [crops[i : i + 64] for i in range(0, len(crops), 64)]
        cpu, wall = time.process_time(), time.perf_counter()
        for batch in batches:
            data.stack(batch, multiple_of=1)
        report("batch", len(crops), time.process_time() - cpu, time.perf_counter() - wall)
        del decoded, crops, batches

        for threads in (1, 2, 4):
            loader = data.train_batches(
                animals,
                batch_size=50,
                epochs=3,
                seed=0,
                image_size=flags.image_size,
                threads=threads,
            )
            cpu, wall = time.process_time(), time.perf_counter()
            count = sum(len(batch["index"]) for batch in loader)
            report(
                f"all, {threads} loader threads",
                count,
                time.process_time() - cpu,
                time.perf_counter() - wall,
            )


if __name__ == "__main__":
    main()
