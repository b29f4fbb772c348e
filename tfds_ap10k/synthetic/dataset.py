"""Draws an AP-10K-shaped data set of articulated animals: the embedded default, no download.

    python -m tfds_ap10k.synthetic DEST [--images=400] [--seed=0]

Every picture is our own drawing, made from numbers; no photograph is used. The result has the
official layout, `annotations/ap10k-{train,val,test}-split{1,2,3}.json` and `data/*.jpg`, so that
the TFDS builder and the evaluation need not know. Sixteen species with their own proportions and
coats walk, stand, graze, crouch, lie or sit in the eight kinds of background, alone or together,
sometimes behind a bush.

Labels follow AP-10K: left and right are the animal's own; a joint that cannot be seen is 0, 0, 0
and not counted. Hidden are joints behind the animal's own body (the far eye), behind a bush or
another animal, and outside the picture. Far legs that can be seen are labelled, and drawn darker.
"""

import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import tqdm

from ap10k_jax import keypoints
from ap10k_jax.runtime import command_line, errors, file_lock, files
from tfds_ap10k import splits, taxonomy
from tfds_ap10k.synthetic import animals, pictures

DRAWN_SPECIES = tuple(animals.BODIES)
STAMP = "synthetic.json"  # written last, holds the arguments: a folder without it is not finished
VERSION = 2  # of the drawings; raise it whenever a change alters pictures or labels


def generate(directory: str | os.PathLike, *, images: int = 400, seed: int = 0) -> Path:
    """The directory, filled with `images` drawings and the nine annotation files.

    Same arguments, same files: image i depends on (seed, i) only. A directory that is already
    complete is left as it is; one that holds anything else is never touched.
    """
    directory = Path(directory).absolute()  # "." has no name to put a sibling beside
    wanted = {"images": images, "seed": seed, "version": VERSION}
    if not is_complete(directory, wanted):
        full = "make room and draw again; nothing of it was kept"
        with files.explain_disk_errors(directory.parent, full=full, closed="choose another folder"):
            directory.parent.mkdir(parents=True, exist_ok=True)
            with file_lock.locked(directory.with_name(f".{directory.name}.lock"), wait=True):
                if not is_complete(directory, wanted):  # another process may have drawn it by now
                    draw_all(directory, wanted)
                    return directory
    print(f"{directory} already holds these {images} drawings (seed {seed}); nothing to do")
    return directory


def draw_all(directory: Path, wanted: dict) -> None:
    """Draw `wanted` beside the destination and rename it at the end.

    Interrupted it leaves no half data set; what a kill has left is cleared away.
    """
    images, seed = wanted["images"], wanted["seed"]
    enough = 10 * len(DRAWN_SPECIES)
    if images < enough:
        print(f"note: fewer than {enough} images leave some species without any in val")

    unfinished = directory.with_name(f"{directory.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        (unfinished / "data").mkdir(parents=True)
        (unfinished / "annotations").mkdir()
        scenes = []
        for i in tqdm.trange(images, desc="drawing", unit="image"):
            picture, image, records, _ = draw(seed, i)
            scenes.append((image, records))
            path = unfinished / "data" / image["file_name"]
            _, jpeg = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])
            path.write_bytes(jpeg)  # says what is wrong with the disk, which cv2.imwrite does not
        for split in (1, 2, 3):
            species = [records[0]["category_id"] for _, records in scenes]
            parts = splits.divide(species, [seed, split])
            for part, members in parts.items():
                path = unfinished / "annotations" / f"ap10k-{part}-split{split}.json"
                path.write_text(json.dumps(coco([scenes[i] for i in members])))
        (unfinished / STAMP).write_text(json.dumps(wanted))
        if directory.exists():
            directory.rmdir()  # empty, is_complete has seen to that
        unfinished.rename(directory)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def is_complete(directory: Path, wanted: dict) -> bool:
    """True if the directory holds exactly the wanted drawings, False if it is new or empty.

    Raises ValueError if it holds anything else.
    """
    if not directory.exists():
        return False
    if not directory.is_dir():
        raise ValueError(f"{directory} is a file; give a folder that is new or empty")
    stamp = directory / STAMP
    if stamp.exists():
        found = json.loads(stamp.read_text())
        if found != wanted:
            raise ValueError(
                f"{directory} holds drawings made with {found}, not {wanted}; "
                "give another folder, or delete that one"
            )
        pictures = sum(1 for _ in (directory / "data").glob("*.jpg"))
        files = sum(1 for _ in (directory / "annotations").glob("ap10k-*.json"))
        if (pictures, files) != (wanted["images"], 9):
            raise ValueError(f"{directory} has lost files since it was made; delete it and retry")
        return True
    if any(directory.iterdir()):
        raise ValueError(f"{directory} is not empty and was not made here; give a new folder")
    return False


def coco(scenes: list[tuple[dict, list[dict]]]) -> dict:
    """One annotation file, shaped as the official ones."""
    skeleton = [[a + 1, b + 1] for a, b in keypoints.AP10K.skeleton]  # 1-based, as there
    return {
        "info": {
            "description": "Drawings in the shape of AP-10K, made by tfds_ap10k.synthetic",
            "url": "", "version": "1.0", "year": 2021, "contributor": "ap10k_jax",
            "date_created": "2021/07/01",
        },
        "licenses": [
            {"id": 1, "name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"}
        ],
        "images": [image for image, _ in scenes],
        "annotations": [record for _, records in scenes for record in records],
        "categories": [
            {"id": s.id, "name": s.name, "supercategory": s.family,
             "keypoints": list(keypoints.AP10K.names), "skeleton": skeleton}
            for s in taxonomy.SPECIES
        ],
    }  # fmt: skip


def draw(seed: int, i: int) -> tuple[np.ndarray, dict, list[dict], np.ndarray]:
    """Picture i: RGB uint8 (H, W, 3), its `image` record, its `annotations`, and the owner mask.

    The mask (H, W) has 0 for the background, k for the animal of the k-th record (from 1), -1 for
    what stands in front of animals.
    """
    # Turns in which every species comes once, so any number of images is balanced.
    turn, place_in_turn = divmod(i, len(DRAWN_SPECIES))
    order = np.random.default_rng([seed, turn, 1]).permutation(len(DRAWN_SPECIES))
    species = DRAWN_SPECIES[order[place_in_turn]]
    body = animals.BODIES[species]
    attempt = 0
    while True:  # a scene whose animals are all hidden has nothing to teach: draw another
        rng = np.random.default_rng([seed, i, 2, attempt])
        picture, place, found, owner = pictures.scene(body, rng)
        if found:
            break
        attempt += 1
    height, width = picture.shape[:2]
    # {'license': 1, 'id': 37516, 'file_name': '000000037516.jpg', 'width': 1200, 'height': 867,
    #  'background': 5}
    image = {
        "license": 1,
        "id": i + 1,
        "file_name": f"{i + 1:012d}.jpg",
        "width": width,
        "height": height,
        "background": place,
    }
    # {'id': 9284, 'image_id': 37516, 'category_id': 26, 'bbox': [66, 192, 1092, 512],
    #  'area': 559104, 'iscrowd': 0, 'num_keypoints': 16, 'keypoints': [134, 415, 2, 0, 0, 0, ...]}
    records = [
        {
            "id": 10 * (i + 1) + k,  # known without counting the animals of earlier images
            "image_id": i + 1,
            "category_id": taxonomy.id_of(species),
            "bbox": box,
            "area": box[2] * box[3],
            "iscrowd": 0,
            "num_keypoints": sum(p[2] > 0 for p in points),
            "keypoints": [value for point in points for value in point],
        }
        for k, (box, points) in enumerate(found)
    ]
    return picture, image, records, owner


def main() -> None:
    parser = command_line.Parser(
        "tfds_ap10k.synthetic",
        "Draws a data set of articulated animals in the official AP-10K layout. "
        "Everything is drawn here, nothing is downloaded. Same arguments, same files.",
        epilog="Then build it like the real one: python -m tfds_ap10k.build --manual-dir=DEST",
    )
    parser.add_argument(
        "directory", metavar="DEST", help="a new or empty folder, for annotations/ and data/"
    )
    parser.add_argument(
        "--images", type=int, default=400, help="how many pictures; about 70 a second (default 400)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="another seed draws another data set (default 0)"
    )
    arguments = parser.parse_args()
    if arguments.images < 1 or arguments.seed < 0:
        parser.error("--images must be at least 1 and --seed at least 0")
    with errors.reported(ValueError):
        directory = generate(arguments.directory, images=arguments.images, seed=arguments.seed)
    print(f"{directory}: {arguments.images} pictures, 9 annotation files")
