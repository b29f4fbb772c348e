"""Table 11's report knows which test photographs its networks had seen, and what is without."""

import csv
import importlib.util
import json

import cv2
import miniature
import numpy as np
import pytest

from ap10k_jax import evaluate, run_log
from ap10k_jax.data.animals import SPLITS, Animals, open_builder, read_annotations
from ap10k_jax.reproduce import overlap, paper_report, plan, tables
from tfds_ap10k import build, hashes

curate = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, hashes.PACKAGES)),
    reason="near-duplicates need the extra `curate`",
)
CELL = "cross_dataset/ap10k-direct"
SOURCE, TARGET = "animal_pose/split1", "ap10k/split1"


@pytest.fixture(scope="module")
def folder(synthetic_dir, tmp_path_factory):
    """AP-10K, and those of its sheep, horses and cows as Animal-Pose, stored anew, built."""
    manual = tmp_path_factory.mktemp("manual") / "animal_pose"
    miniature.write_animal_pose(synthetic_dir / "drawn", manual)
    for path in (manual / "images").iterdir():
        picture = cv2.imread(str(path))
        path.unlink()  # a link to the drawing
        assert cv2.imwrite(str(path), picture, [cv2.IMWRITE_JPEG_QUALITY, 60])
    build.build("split1", manual_dir=manual, data_dir=synthetic_dir, dataset="animal_pose")
    return synthetic_dir


@pytest.fixture
def steps(folder, tmp_path):
    """The plan of Table 11; one run is done, right where it had not seen the photograph."""
    cells = tables.cells(tables.numbers(11))
    settings = (f"data.dir={folder}",)
    (step,) = (s for s in plan.make(cells, settings, tmp_path) if s.cell.name == CELL)
    step.workdir.mkdir(parents=True)
    (step.workdir / "config.json").write_text(step.config.to_json())
    animals = Animals.open(TARGET, "test", data_dir=folder)
    trained = names_in(folder, *overlap.TRAINED)
    rows = []
    for i in range(len(animals)):
        a, wrong = animals.annotation(i), 9999 * (animals.image(i)["file_name"] in trained)
        points = [v + wrong * (k % 3 == 0) for k, v in enumerate(a["keypoints"])]
        row = {"id": a["id"], "image_id": a["image_id"], "category_id": a["category_id"]}
        rows.append(row | {"keypoints": points, "score": 1})
    arrays = [row | {"keypoints": np.reshape(row["keypoints"], (-1, 3))} for row in rows]
    scores = evaluate.full_score(animals, arrays, sigmas="paper")
    content = run_log.plain({"step": 0, "sigmas": "paper", "test": scores})
    (step.workdir / "results.json").write_text(json.dumps(content))
    (step.workdir / "predictions-test.json").write_text(json.dumps(rows))
    return plan.make(cells, settings, tmp_path)


def names_in(folder, *splits):
    contents = read_annotations(open_builder(SOURCE, folder))
    return {image["file_name"] for split in splits for image in contents[split]["images"]}


@curate
def test_the_photographs_of_two_built_data_sets_are_matched_once(folder, tmp_path, monkeypatch):
    matches = overlap.between(SOURCE, TARGET, folder, tmp_path)
    same = {m.first.file_name for m in matches if m.first.file_name == m.second.file_name}
    assert same == names_in(folder, *SPLITS)
    assert len(matches) <= len(same) + 4  # drawings share their backgrounds
    of_split = {split: names_in(folder, split) for split in SPLITS}
    assert all(m.first.file_name in of_split[m.first.split] for m in matches)
    ids = {
        (split, image["file_name"]): image["id"]
        for split, coco in read_annotations(open_builder(TARGET, folder)).items()
        for image in coco["images"]
    }
    assert all(ids[m.second.split, m.second.file_name] == m.second.image_id for m in matches)

    monkeypatch.setattr(overlap, "_search", lambda *_: pytest.fail("searched again"))
    assert overlap.between(SOURCE, TARGET, folder, tmp_path) == matches
    turned = overlap.between(TARGET, SOURCE, folder, tmp_path)
    assert [(m.second, m.first) for m in turned] == [(m.first, m.second) for m in matches]
    monkeypatch.setattr(hashes, "MAX_BITS", 1)  # another search has other results
    with pytest.raises(pytest.fail.Exception):
        overlap.between(SOURCE, TARGET, folder, tmp_path)


@curate
def test_the_report_counts_what_was_seen_and_scores_the_rest(folder, steps, tmp_path):
    files = paper_report.write(tmp_path, (11,), tables.numbers(11), steps)
    texts = {file.name: file.read_text() for file in files}
    found = {one.name: one for one in overlap.exposures(tmp_path, steps)}
    assert len(found) == 8
    direct = found["animal_pose (neck: throat) to ap10k, direct"]
    tests = Animals.open(TARGET, "test", data_dir=folder)
    tested = {tests.image(i)["file_name"] for i in range(len(tests))}
    trained = names_in(folder, *overlap.TRAINED)
    assert direct.tested == len(tested)
    assert 0 < len(tested & trained) <= len(direct.seen) < len(tested)
    assert direct.ap_without == pytest.approx(1)
    stored = json.loads((tmp_path / CELL / "results.json").read_text())
    assert direct.ap == pytest.approx(stored["test"]["AP"])
    assert direct.ap < 0.99
    assert found["animal_pose (neck: throat) to ap10k, finetune"].ap is None  # not run
    line = f"| {direct.name} | {direct.tested} | {len(direct.seen)} | {direct.ap:.3f} | 1.000 |"
    assert line in texts["report-11.md"]
    found = list(csv.DictReader(texts["report-11-shared.csv"].splitlines()))
    assert {"trained_on": SOURCE, "tested_on": TARGET}.items() <= found[0].items()
    assert tested & trained <= {row["test_file"] for row in found}
    assert "seen in training" in texts["report-11.html"]


def test_what_cannot_be_checked_is_said(steps, folder, tmp_path, monkeypatch):
    missing = tables.cells(tables.numbers(11))
    unbuilt = overlap.exposures(tmp_path, plan.make(missing, (f"data.dir={tmp_path}",), tmp_path))
    assert all(one.lack.endswith("is not built here") for one in unbuilt)
    monkeypatch.setattr(hashes, "PACKAGES", ("faiss_that_is_not_there",))
    files = paper_report.write(tmp_path, (11,), tables.numbers(11), steps)
    text = files[0].read_text()
    assert text.count(f"not checked: faiss_that_is_not_there must be installed: {overlap.INSTALL}")
