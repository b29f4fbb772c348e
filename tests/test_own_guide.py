"""docs/own_dataset.md: from photographs and two tables to a report, by its commands as printed."""

import csv
import importlib
import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import own_joints
import pytest

from ap10k_jax import keypoints
from tfds_ap10k import annotations, hashes, splits
from tfds_ap10k.exchange import cvat, label_studio

ROOT = Path(__file__).parents[1]
GUIDE = ROOT / "docs" / "own_dataset.md"
SMALL = (  # what a test adds to the guide's training so that it takes seconds
    *("--config.model.name=hrnet_tiny", "--config.epochs=1", "--config.data.image_size=64"),
    *("--config.batch_size=16", "--config.eval.batch_size=16", "--config.init_from="),
    "--config.drop_remainder=True",
)
JOINTS = list(own_joints.NINE)

if missing := [name for name in hashes.PACKAGES if not importlib.util.find_spec(name)]:
    pytest.skip(f"the guide needs {missing[0]} of the extra `curate`", allow_module_level=True)


def commands() -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", GUIDE.read_text(), flags=re.S)
    return [line.strip() for block in blocks for line in block.splitlines() if line.strip()]


def write_tables(folder: Path, drawn: Path) -> dict:
    """photos/ and the guide's two tables; what an annotator would find in the photographs."""
    own = own_joints.write(drawn, folder / "truth", own_joints.NINE)
    parts = [json.loads((own / f"annotations/{part}.json").read_text()) for part in splits.PARTS]
    truth = splits.join(parts)
    shutil.copytree(own / "images", folder / "photos")
    kinds = {category["id"]: category for category in truth["categories"]}
    species = splits.species_of_images(truth)
    with (folder / "species.csv").open("w", newline="", encoding="utf-8-sig") as file:
        table = csv.writer(file)
        table.writerow(["file", "species", "family"])
        for image in truth["images"]:
            kind = kinds[species[image["id"]]]
            table.writerow([image["file_name"], kind["name"], kind["supercategory"]])
    limbs = {b: a for a, b in own_joints.SKELETON}
    lines = ["joint,connected_to"]
    lines += [f"{n}, {JOINTS[limbs[i] - 1] if i in limbs else ''}" for i, n in enumerate(JOINTS, 1)]
    (folder / "joints.csv").write_text("\n".join(lines))
    return truth


def annotate(folder: Path, truth: dict) -> None:
    """The exports of three tools, of somebody who has annotated blank.json without a mistake."""
    blank = json.loads((folder / "blank.json").read_text())
    ids = {image["file_name"]: image["id"] for image in blank["images"]}
    kinds = {category["name"]: category["id"] for category in blank["categories"]}
    places = {i["id"]: ids[i["file_name"]] for i in truth["images"] if i["file_name"] in ids}
    names = {category["id"]: category["name"] for category in truth["categories"]}
    done = blank | {
        "annotations": [
            a | {"image_id": places[a["image_id"]], "category_id": kinds[names[a["category_id"]]]}
            for a in truth["annotations"]
            if a["image_id"] in places
        ]
    }
    (folder / "export.json").write_text(json.dumps(label_studio.export(done, "/data/photos/")))
    (folder / "annotations.xml").write_text(cvat.export(done))
    # as a tool that counts anew, and has its joints in another order
    order = list(range(len(JOINTS)))[::-1]
    other = json.loads(json.dumps(done))
    for image in other["images"]:
        image |= {"id": image["id"] + 900, "file_name": f"task/{image['file_name']}"}
    for category in other["categories"]:
        category |= {"id": category["id"] + 50, "keypoints": [JOINTS[k] for k in order]}
        del category["supercategory"]
    for animal in other["annotations"]:
        points = [animal["keypoints"][3 * k : 3 * k + 3] for k in order]
        animal |= {
            "image_id": animal["image_id"] + 900,
            "keypoints": list(itertools.chain(*points)),
        }
        animal["category_id"] += 50
    (folder / "coco.json").write_text(json.dumps(other))


def command_of(name):
    """The module that `python -m name` runs."""
    module = importlib.import_module(name)
    return importlib.import_module(f"{name}.__main__") if hasattr(module, "__path__") else module


@pytest.fixture(scope="module")
def walked(tmp_path_factory, synthetic_dir):
    """The reader's folder after the steps that need no training, and the truth; one photograph is
    there twice.
    """
    folder = tmp_path_factory.mktemp("reader")
    truth = write_tables(folder, synthetic_dir / "drawn")
    first = truth["images"][0]["file_name"]
    shutil.copy(folder / "photos" / first, folder / "photos" / "copy.jpg")
    table = folder / "species.csv"
    line = next(line for line in table.read_text().splitlines() if line.startswith(first))
    table.write_text(table.read_text() + line.replace(first, "copy.jpg") + "\n")
    fetched = []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for command in commands():
            words = shlex.split(command)
            if "--from-" in command and not fetched:
                annotate(folder, truth)
            if words[0] == "cp":
                shutil.copytree(folder / words[2], folder / words[3])
            elif words[2].startswith("tfds_ap10k."):
                patch.setattr(sys, "argv", words[2:])
                status = command_of(words[2]).main()
                assert not status, command
                if "--from-" in command:
                    fetched.append(json.loads((folder / "annotated.json").read_text()))
    return folder, truth, fetched


def test_the_guide_goes_through_every_step():
    steps = ["dedup", "blank", "exchange", "checks", "divide", "build", "main", "run_report"]
    modules = [c.split()[2].split(".")[1] for c in commands() if c.startswith("python -m")]
    assert list(dict.fromkeys(modules)) == [*steps, "predict"]


def test_the_blank_file_has_a_species_and_a_box_for_every_photograph_and_no_joint(walked):
    folder, truth, _ = walked
    blank = json.loads((folder / "blank.json").read_text())
    assert annotations.check(blank, file="blank.json")[1] == []
    joints = keypoints.of_annotations(blank)
    assert list(joints.names) == JOINTS
    assert {frozenset(limb) for limb in joints.skeleton} == {
        frozenset((a - 1, b - 1)) for a, b in own_joints.SKELETON
    }
    assert len(blank["images"]) == len(truth["images"])  # the copy was dropped
    sizes = {image["id"]: [0, 0, image["width"], image["height"]] for image in blank["images"]}
    assert {a["image_id"]: a["bbox"] for a in blank["annotations"]} == sizes
    assert not any(any(a["keypoints"]) for a in blank["annotations"])
    species = {category["id"]: category["name"] for category in blank["categories"]}
    expected = splits.species_of_images(truth)
    names = {category["id"]: category["name"] for category in truth["categories"]}
    files = {image["file_name"]: names[expected[image["id"]]] for image in truth["images"]}
    images = {image["id"]: image["file_name"] for image in blank["images"]}
    for animal in blank["annotations"]:
        kind = files.get(images[animal["image_id"]]) or files[truth["images"][0]["file_name"]]
        assert species[animal["category_id"]] == kind


def test_every_tool_brings_the_same_annotations_back(walked):
    _, truth, fetched = walked
    assert len(fetched) == 3

    def content(coco):
        files = {image["id"]: image["file_name"] for image in coco["images"]}
        kinds = {c["id"]: (c["name"], c["supercategory"]) for c in coco["categories"]}
        return sorted(
            (files[a["image_id"]], kinds[a["category_id"]], a["bbox"], a["keypoints"])
            for a in coco["annotations"]
        )

    lost = truth["images"][0]["file_name"]  # or its copy: whichever was kept
    expected = [row for row in content(truth) if row[0] != lost]
    for coco in fetched:
        assert [row for row in content(coco) if row[0] not in (lost, "copy.jpg")] == expected


def test_duplicates_are_left_out_and_the_data_set_is_built(walked):
    folder, truth, _ = walked
    found = {
        part: json.loads((folder / f"foxes/annotations/{part}.json").read_text())
        for part in splits.PARTS
    }
    files = [image["file_name"] for coco in found.values() for image in coco["images"]]
    assert len(files) == len(set(files)) == len(truth["images"])
    assert len({"copy.jpg", truth["images"][0]["file_name"]} & set(files)) == 1
    assert (folder / "data" / "own" / "foxes").is_dir()
    assert (folder / "findings.csv").exists()
    assert (folder / "found" / "sheet-001.png").exists()


@pytest.mark.slow
def test_training_report_and_prediction_go_on_from_there(walked):
    folder, _, _ = walked
    shutil.copytree(ROOT / "configs", folder / "configs")
    for command in commands():
        words = shlex.split(command)
        if not (words[0] == "python" and words[2].startswith("ap10k_jax.")):
            continue
        more = SMALL if words[2] == "ap10k_jax.main" else ()
        done = subprocess.run(
            [sys.executable, *words[1:], *more],
            cwd=folder,
            env=os.environ | {"JAX_NUM_CPU_DEVICES": "1"},
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    text = (folder / "runs/foxes/report.html").read_text()
    assert all(words in text for words in ("own/foxes", "9 joints", "our ", "sigma 0.05"))
    assert text.count("<img") == 3  # curves, and the animals of two splits
    with (folder / "predictions" / "keypoints.csv").open() as file:
        assert {row["joint"] for row in csv.DictReader(file)} == set(JOINTS)
    assert len(list((folder / "predictions" / "drawn" / "photos").iterdir())) == 49
