"""Draws an AP-10K-shaped data set of articulated animals: the embedded default, nothing to download.

    python -m tfds_ap10k.synthetic DEST [--images=400] [--seed=0]

Every picture is our own drawing, made from numbers; no photograph is used. The result has the
official layout, `annotations/ap10k-{train,val,test}-split{1,2,3}.json` and `data/*.jpg`, so the TFDS
builder and the evaluation cannot tell it from AP-10K. Sixteen species with their own proportions and
coats walk, stand, graze, crouch, lie or sit in the eight kinds of background, alone or together,
sometimes behind a bush.

Labels follow AP-10K: left and right are the animal's own; a joint that cannot be seen is 0, 0, 0
and not counted. Hidden are joints behind the animal's own body (the far eye), behind a bush or
another animal, and outside the picture. Far legs that can be seen are labelled, and are drawn darker.
"""

import argparse
import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import tqdm

from ap10k_jax import keypoints
from tfds_ap10k import synthetic_animals as animals
from tfds_ap10k import taxonomy

DRAWN_SPECIES = tuple(animals.BODIES)
STAMP = (
    "synthetic.json"  # holds the arguments; a folder without it was not made here, or not finished
)
SHARES = {"train": 7, "val": 1, "test": 2}

# Sky (top, horizon) and ground (far, near) of the places 1..8 of taxonomy.BACKGROUNDS.
PLACES = {
    1: (((120, 176, 224), (206, 226, 236)), ((168, 170, 96), (112, 138, 58))),
    2: (((58, 84, 58), (96, 128, 88)), ((78, 96, 52), (70, 76, 44))),
    3: (((170, 184, 198), (214, 214, 208)), ((140, 118, 96), (104, 84, 66))),
    4: (((168, 190, 216), (222, 230, 240)), ((224, 230, 240), (196, 208, 226))),
    5: (((176, 164, 148), (190, 180, 166)), ((150, 146, 140), (128, 124, 120))),
    6: (((150, 182, 206), (206, 220, 222)), ((98, 132, 140), (88, 104, 68))),
    7: (((136, 182, 226), (232, 222, 204)), ((222, 186, 130), (196, 150, 92))),
    8: (((126, 140, 126), (150, 150, 134)), ((140, 136, 116), (110, 104, 92))),
}


def generate(directory: str | os.PathLike, *, images: int = 400, seed: int = 0) -> Path:
    """The directory, filled with `images` drawings and the nine annotation files.

    Same arguments, same files: image i depends on (seed, i) only. A directory that is already
    complete is left as it is; one that holds anything else is never touched.
    """
    directory = Path(directory)
    wanted = {"images": images, "seed": seed, "version": 1}
    if is_complete(directory, wanted):
        print(f"{directory} already holds these {images} drawings (seed {seed}); nothing to do")
        return directory
    if images < 10 * len(DRAWN_SPECIES):
        print(f"note: fewer than {10 * len(DRAWN_SPECIES)} images leave species out of val or test")

    directory.parent.mkdir(parents=True, exist_ok=True)
    # Drawn beside the destination and renamed at the end: an interrupted run leaves no half data set.
    unfinished = directory.with_name(f"{directory.name}.unfinished-{os.getpid()}")
    try:
        (unfinished / "data").mkdir(parents=True)
        (unfinished / "annotations").mkdir()
        scenes = []
        for i in tqdm.trange(images, desc="drawing", unit="image"):
            picture, image, records, _ = draw(seed, i)
            scenes.append((image, records))
            path = unfinished / "data" / image["file_name"]
            cv2.imwrite(str(path), picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])
        for split in (1, 2, 3):
            parts = divide([records[0]["category_id"] for _, records in scenes], [seed, split])
            for part, members in parts.items():
                path = unfinished / "annotations" / f"ap10k-{part}-split{split}.json"
                path.write_text(json.dumps(coco([scenes[i] for i in members])))
        (unfinished / STAMP).write_text(json.dumps(wanted))
        if directory.exists():
            directory.rmdir()  # empty, is_complete has seen to that
        unfinished.rename(directory)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return directory


def is_complete(directory: Path, wanted: dict) -> bool:
    """Whether the directory holds exactly what is wanted; an error if it holds anything else."""
    if not directory.exists():
        return False
    if not directory.is_dir():
        raise ValueError(f"{directory} is a file; give a folder that is new or empty")
    stamp = directory / STAMP
    if stamp.exists():
        found = json.loads(stamp.read_text())
        if found == wanted:
            return True
        raise ValueError(f"{directory} holds drawings made with {found}, not {wanted}; "
                         "give another folder, or delete that one")  # fmt: skip
    if any(directory.iterdir()):
        raise ValueError(f"{directory} is not empty and was not made here; give a new folder")
    return False


def divide(species: list[int], seed: list[int]) -> dict[str, list[int]]:
    """Indices of train, val and test: 7:1:2 within every species, at random, in ascending order."""
    rng = np.random.default_rng(seed)
    parts = {part: [] for part in SHARES}
    for one in sorted(set(species)):
        members = rng.permutation([i for i, s in enumerate(species) if s == one]).tolist()
        val, test = (int(share * len(members) + 0.5) for share in (0.1, 0.2))
        first = len(members) - val - test
        second = first + val
        for part, chosen in zip(
            SHARES, (members[:first], members[first:second], members[second:]), strict=True
        ):
            parts[part] += chosen
    return {part: sorted(chosen) for part, chosen in parts.items()}


def coco(scenes: list[tuple[dict, list[dict]]]) -> dict:
    """One annotation file, shaped as the official ones."""
    skeleton = [[a + 1, b + 1] for a, b in keypoints.AP10K.skeleton]  # 1-based, as there
    return {
        "info": {
            "description": "Drawings in the shape of AP-10K, made by tfds_ap10k.synthetic",
            "url": "", "version": "1.0", "year": 2021, "contributor": "ap10k_jax",
            "date_created": "2021/07/01",
        },
        "licenses": [{"id": 1, "name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"}],
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

    The mask (H, W) has 0 for the background, k for the k-th record's animal, -1 for what is in front.
    """
    # Turns in which every species comes once, so any number of images is balanced.
    turn, place_in_turn = divmod(i, len(DRAWN_SPECIES))
    order = np.random.default_rng([seed, turn, 1]).permutation(len(DRAWN_SPECIES))
    species = DRAWN_SPECIES[order[place_in_turn]]
    attempt = 0
    while True:  # a scene whose animals are all hidden has nothing to teach: draw another
        rng = np.random.default_rng([seed, i, 2, attempt])
        picture, place, found, owner = scene(animals.BODIES[species], rng)
        if found:
            break
        attempt += 1
    height, width = picture.shape[:2]
    image = {"license": 1, "id": i + 1, "file_name": f"{i + 1:012d}.jpg", "width": width, "height": height,
             "background": place}  # fmt: skip
    records = []
    for k, (box, points) in enumerate(found):
        records.append({
            "id": 10 * (i + 1) + k, "image_id": i + 1, "category_id": taxonomy.id_of(species), "bbox": box,
            "area": box[2] * box[3], "iscrowd": 0, "num_keypoints": sum(p[2] > 0 for p in points),
            "keypoints": [value for point in points for value in point],
        })  # fmt: skip
    return picture, image, records, owner


def scene(body: animals.Body, rng: np.random.Generator):
    """A picture (uint8), its place 1..8, per animal (box, 17 x [x, y, v]), and the owner mask."""
    width, height = (int(rng.integers(200, 361)) for _ in range(2))
    if body.leg > 1.2:  # tall animals get tall pictures
        width, height = sorted((width, height))
    else:
        height, width = sorted((width, height))
        height = max(height, 160)
    place = int(rng.integers(1, 9))
    horizon = int(height * rng.uniform(0.28, 0.5))
    rgb = background(place, height, width, horizon, rng)
    canvas = animals.Canvas(
        rgb, np.empty((height, width), np.float32), np.zeros((height, width), np.int32)
    )
    angle, raised = rng.uniform(0, 2 * np.pi), rng.uniform(0.35, 0.75)
    light = np.array([0.45 * np.cos(angle), -raised, 0.0])
    light[2] = -np.sqrt(max(1 - light @ light, 0.1))
    light = np.array([light[0], light[1], -light[2]])

    count = 1 if place == 8 else int(rng.choice([1, 2, 3, 4], p=[0.66, 0.22, 0.08, 0.04]))
    joints = [placed(canvas, body, k, count, place, light, rng) for k in range(1, count + 1)]
    if place != 8 and rng.random() < 0.3:
        bush(canvas, place, rng)
    if place in (1, 6):
        blades(canvas, place, rng)
    picture = finish(canvas.rgb, rng)

    found = []
    for k, points in enumerate(joints, start=1):
        mask = canvas.owner == k
        ys, xs = np.nonzero(mask)
        points = [label(point, mask) for point in points]
        if len(xs) < 150 or sum(p[2] > 0 for p in points) < 4:
            canvas.owner[mask] = -1  # too little is left of it to be worth a label, as in AP-10K
            continue
        box = [int(v) for v in (xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1)]
        found.append((box, points))
        canvas.owner[mask] = len(found)
    return picture, place, found, canvas.owner


def label(point: np.ndarray, mask: np.ndarray) -> list[int]:
    """[x, y, 2] of a joint in whole pixels, or [0, 0, 0] if it or what is around it is hidden."""
    x, y = np.round(point[:2]).astype(int).tolist()
    height, width = mask.shape
    if not point[2] or not (0 <= x < width and 0 <= y < height):
        return [0, 0, 0]
    around = mask[max(y - 2, 0) : y + 3, max(x - 2, 0) : x + 3]
    return [x, y, 2] if around.mean() >= 0.3 else [0, 0, 0]


def placed(canvas, body, k, count, place, light, rng) -> np.ndarray:
    """Poses and paints animal k of count, the farthest first; its joints (17, 3) as x, y, seen."""
    height, width = canvas.depth.shape
    animal = animals.pose(animals.vary(body, rng), rng)
    side = rng.choice(["profile", "front", "back"], p=[0.72, 0.2, 0.08])
    off = {
        "profile": rng.uniform(-22, 22),
        "front": rng.uniform(-58, -25),
        "back": rng.uniform(25, 50),
    }[side]
    yaw = np.deg2rad(off)  # negative comes toward us
    yaw = yaw if rng.random() < 0.5 else np.pi - yaw
    pitch = np.deg2rad(rng.uniform(3, 16))
    x0, y0, x1, y1 = animals.extent(animal, yaw, pitch)
    size = np.array([x1 - x0, y1 - y0])
    share = rng.uniform(0.55, 0.92) if count == 1 else rng.uniform(0.62, 0.8) / (0.55 + 0.3 * count)
    scale = share * (np.array([width, height]) / size).min()
    if count > 1:  # neighbours may overlap, not bury one another
        scale = min(scale, 1.3 * width / count / size[0])
    if place == 8:
        scale *= rng.uniform(1.25, 1.6)  # a portrait: the hind part may leave the picture
    span = size * scale
    lane = width / count  # each has its lane; lanes overlap where animals are wide
    centre = lane * (k - 0.5) + rng.uniform(-0.08, 0.08) * width if count > 1 else (
        rng.uniform(span[0] / 2, max(width - span[0] / 2, span[0] / 2 + 1))
    )  # fmt: skip
    if place == 8:  # keep the head in
        ahead = np.sign(np.cos(yaw))
        centre = width / 2 - ahead * max(span[0] - width, 0) * rng.uniform(0.4, 0.5)
    elif rng.random() > 0.08:
        centre = np.clip(centre, span[0] / 2, max(width - span[0] / 2, span[0] / 2))
    top, low = span[1] + 2, height * 0.97
    bottom = low if top >= low else rng.uniform(max(top, height * (0.55 + 0.1 * k)), low)
    if place == 8:
        bottom = max(height * 0.97, span[1] + 4)
    origin = np.array([centre - (x0 + x1) / 2 * scale, bottom - y1 * scale])
    shadow(canvas.rgb, (centre, bottom), span, rng)
    return animals.paint_animal(canvas, animal, k, yaw, pitch, scale, origin, light, rng)


def background(place: int, height: int, width: int, horizon: int, rng) -> np.ndarray:
    """Float RGB (H, W, 3) of an empty place."""
    sky, ground = np.array(PLACES[place], np.float32)
    rows = np.arange(height, dtype=np.float32)[:, None]
    up = np.clip(rows / max(horizon, 1), 0, 1)
    down = np.clip((rows - horizon) / max(height - horizon, 1), 0, 1)
    column = np.where(
        rows < horizon, sky[0] + up * (sky[1] - sky[0]), ground[0] + down * (ground[1] - ground[0])
    )
    rgb = np.repeat(column[:, None], width, 1) * rng.uniform(0.9, 1.08, 3).astype(np.float32)
    for cells, strength in ((6, 9.0), (24, 7.0), (80, 5.0)):
        small = rng.normal(0, strength, (cells, cells)).astype(np.float32)
        rgb += cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)[..., None]
    rgb = np.clip(rgb, 0, 255)
    tint = tuple(float(v) for v in rgb[horizon:].mean((0, 1)))

    def shade(factor):
        return tuple(float(np.clip(v * factor, 0, 255)) for v in tint)

    if place == 2:
        for x in rng.integers(0, width, rng.integers(4, 9)):
            thick = int(rng.integers(3, 12))
            cv2.line(
                rgb, (int(x), 0), (int(x + rng.normal(0, 6)), horizon + thick), (62, 50, 38), thick
            )
        puffs(rgb, rng, 40, (0, width), (0, horizon), (5, 18), (58, 86, 46), 22)
    elif place == 3:
        for _ in range(rng.integers(5, 12)):
            corner = rng.uniform([0, horizon - 8], [width, height])
            corners = corner + rng.normal(0, rng.uniform(5, 15), (6, 2)) * [1.5, 0.8]
            hull = cv2.convexHull(corners.astype(np.int32))
            cv2.fillPoly(rgb, [hull], shade(rng.uniform(0.7, 1.15)), cv2.LINE_AA)
    elif place == 4:
        for x in rng.integers(0, width, 7):
            tall = int(rng.integers(12, max(horizon, 20)))
            tree = [[x - tall // 4, horizon], [x + tall // 4, horizon], [x, horizon - tall]]
            cv2.fillPoly(rgb, [np.array(tree, np.int32)], (92, 112, 116), cv2.LINE_AA)
    elif place == 5:
        if rng.random() < 0.5:  # a fence
            for x in range(int(rng.integers(0, 20)), width, int(rng.integers(18, 34))):
                cv2.line(rgb, (x, horizon // 4), (x, horizon), (104, 98, 92), 2, cv2.LINE_AA)
            for y in (horizon // 3, horizon * 2 // 3):
                cv2.line(rgb, (0, y), (width, y), (104, 98, 92), 2, cv2.LINE_AA)
        else:  # a brick wall
            for r, y in enumerate(range(0, horizon, 12)):
                cv2.line(rgb, (0, y), (width, y), (150, 138, 124), 1)
                for x in range((r % 2) * 14, width, 28):
                    cv2.line(rgb, (x, y), (x, min(y + 12, horizon)), (150, 138, 124), 1)
    elif place == 6:
        for _ in range(26):
            y = int(rng.integers(horizon, horizon + max((height - horizon) // 3, 2)))
            x, long = int(rng.integers(0, width)), int(rng.integers(8, 40))
            cv2.line(rgb, (x, y), (x + long, y), (150, 176, 186), 1, cv2.LINE_AA)
    elif place == 7:
        for _ in range(3):
            y = int(rng.uniform(horizon, height * 0.85))
            axes = (int(width * rng.uniform(0.3, 0.8)), int(rng.integers(6, 22)))
            cv2.ellipse(
                rgb,
                (int(rng.integers(0, width)), y),
                axes,
                0,
                180,
                360,
                shade(0.92),
                -1,
                cv2.LINE_AA,
            )
    elif place == 8:
        rgb = cv2.GaussianBlur(rgb, (0, 0), 6)
        puffs(rgb, rng, 8, (0, width), (0, height), (10, 30), tint, 24)
        rgb = cv2.GaussianBlur(rgb, (0, 0), 5)
    return np.ascontiguousarray(rgb, np.float32)


def puffs(rgb, rng, count, xs, ys, radii, colour, spread) -> np.ndarray:
    """Paints discs, foliage from a distance; returns them (count, 3) as x, y, radius."""
    discs = np.column_stack(
        [rng.integers(*xs, count), rng.integers(*ys, count), rng.integers(*radii, count)]
    )
    for x, y, r in discs.tolist():
        tone = np.clip(np.array(colour) + rng.normal(0, spread), 0, 255).tolist()
        cv2.circle(rgb, (x, y), r, tone, -1, cv2.LINE_AA)
    return discs


def shadow(rgb: np.ndarray, foot, span, rng) -> None:
    """Darkens the ground under an animal, so that it stands and does not float."""
    mask = np.zeros(rgb.shape[:2], np.float32)
    centre = (int(foot[0] + rng.normal(0, 0.05) * span[0]), int(foot[1] - 0.02 * span[1]))
    axes = (max(int(span[0] * 0.42), 1), max(int(span[1] * 0.06), 1))
    cv2.ellipse(mask, centre, axes, 0, 0, 360, 0.4, -1)
    rgb *= 1 - cv2.GaussianBlur(mask, (0, 0), 3)[..., None]


def bush(canvas: animals.Canvas, place: int, rng) -> None:
    """A bush or rock in front of the animals; what it covers belongs to nobody."""
    height, width = canvas.depth.shape
    x, size = int(rng.integers(0, width)), int(rng.uniform(0.05, 0.11) * min(height, width)) + 3
    colour = {3: (112, 98, 84), 4: (214, 222, 234), 5: (120, 96, 70), 7: (150, 128, 76)}.get(
        place, (64, 96, 44)
    )
    discs = puffs(canvas.rgb, rng, 16, (x - 2 * size, x + 2 * size), (height - 2 * size, height),
                  (size // 2, size), colour, 14)  # fmt: skip
    cover = np.zeros(canvas.depth.shape, np.uint8)
    for x, y, r in discs.tolist():
        cv2.circle(cover, (x, y), r, 1, -1)
    canvas.owner[cover > 0] = -1


def blades(canvas: animals.Canvas, place: int, rng) -> None:
    """Thin grass or reeds along the lower edge, in front of the feet."""
    height, width = canvas.depth.shape
    cover = np.zeros(canvas.depth.shape, np.uint8)
    colour = np.array((132, 146, 62) if place == 1 else (96, 122, 66))
    for x in rng.integers(0, width, width // 9):
        tip = (int(x + rng.normal(0, 4)), int(height - rng.uniform(0.02, 0.1) * height))
        tone = np.clip(colour * rng.uniform(0.7, 1.15), 0, 255).tolist()
        cv2.line(canvas.rgb, (int(x), height), tip, tone, 1, cv2.LINE_AA)
        cv2.line(cover, (int(x), height), tip, 1, 1)
    canvas.owner[cover > 0] = -1


def finish(rgb: np.ndarray, rng) -> np.ndarray:
    """The exposure, colour cast, softness and grain of the camera; uint8."""
    rgb = rgb * rng.uniform(0.78, 1.12) * rng.uniform(0.94, 1.06, 3).astype(np.float32)
    if rng.random() < 0.3:
        rgb = cv2.GaussianBlur(rgb, (0, 0), rng.uniform(0.4, 0.8))
    grain = np.empty(rgb.shape[:2], np.float32)
    cv2.setRNGSeed(int(rng.integers(2**31)))
    cv2.randn(grain, 0, rng.uniform(1, 5))
    return np.clip(rgb + grain[..., None], 0, 255).astype(np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tfds_ap10k.synthetic",
        description="Draws a data set of articulated animals in the official AP-10K layout. All drawings are "
        "made here; nothing is downloaded. Same arguments, same files.",
        epilog="Then build it like the real one: python -m tfds_ap10k.build --manual_dir=DEST",
    )
    parser.add_argument(
        "directory", metavar="DEST", help="a new or empty folder, for annotations/ and data/"
    )
    parser.add_argument(
        "--images", type=int, default=400, help="how many pictures; about 40 a second (default 400)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="another seed draws another data set (default 0)"
    )
    arguments = parser.parse_args()
    if arguments.images < 1 or arguments.seed < 0:
        parser.error("--images must be at least 1 and --seed at least 0")
    try:
        directory = generate(arguments.directory, images=arguments.images, seed=arguments.seed)
    except ValueError as problem:
        parser.error(str(problem))
    print(f"{directory}: {arguments.images} pictures, 9 annotation files")


if __name__ == "__main__":
    main()
