"""What is said and drawn of a data set is what its files hold."""

import csv
import json
import zipfile

import commands
import cv2
import numpy as np
import pytest
import tiny_ap10k
from golden_files import shared

from ap10k_jax import keypoints, visualize
from tfds_ap10k import taxonomy
from tfds_ap10k.describe import __main__ as describe
from tfds_ap10k.describe import figures, statistics


def run(monkeypatch, *flags):
    monkeypatch.setattr("sys.argv", ["describe", *map(str, flags)])
    return commands.status(describe.main)


def a_file() -> dict:
    """Three images: two dogs and a fox; one dog; nothing. Three of 54 species are named."""
    files = tiny_ap10k.contents()["train"]
    animals = [tiny_ap10k.animal(i, image, 8) for i, image in ((1, 4), (2, 4), (3, 3))]
    animals.append(tiny_ap10k.animal(4, 4, 9))
    animals[0] |= {"area": 32.0**2, "bbox": [0, 0, 32, 30]}
    animals[1] |= {"area": 96.0**2}
    animals[2] |= {"area": 32.0**2 - 1, "keypoints": [5, 6, 1, 7, 8, 2, *[0] * 45]}
    animals[3] |= {"area": 96.0**2 + 1, "keypoints": [0] * 51, "num_keypoints": 0}
    images = files["images"][:3]
    images[0] |= {"background": 5}
    images[1] |= {"background": 88, "width": 80}
    del images[2]["background"]
    categories = [c for c in files["categories"] if c["name"] in ("dog", "fox", "bat")]
    return files | {"images": images, "annotations": animals, "categories": categories}


def test_animals_are_counted_by_family_and_species():
    counts = statistics.count([a_file()])
    assert (counts["images"], counts["animals"]) == (3, 4)
    assert (counts["species"], counts["species_with_animals"]) == (3, 2)
    assert (counts["families"], counts["families_with_animals"]) == (2, 1)
    assert counts["per_family"]["Canidae"] == {
        "images": 2,  # one of them has dogs and a fox
        "animals": 4,
        "species": {"dog": {"images": 2, "animals": 3}, "fox": {"images": 1, "animals": 1}},
    }
    assert list(counts["per_family"]) == ["Canidae", "Vespertilionidae"]
    assert counts["animals_per_image"] == {0: 1, 1: 1, 3: 1}


def test_sizes_are_those_of_the_metric_with_both_ends_medium():
    counts = statistics.count([a_file()])
    assert counts["areas"] == {"small": 1, "medium": 2, "large": 1}
    assert counts["image_sizes"] == {"smallest": [40, 30], "median": [40, 30], "largest": [80, 30]}
    assert counts["box_sizes"]["largest"] == [32, 30]


def test_keypoints_are_counted_by_joint():
    counts = statistics.count([a_file()])
    assert counts["keypoints"]["left_eye"] == {"labelled": 3, "hidden": 1}
    assert counts["keypoints"]["right_eye"] == {"labelled": 3, "hidden": 0}
    assert counts["keypoints"]["nose"] == {"labelled": 0, "hidden": 0}
    assert counts["animals_without_keypoints"] == 1


def test_backgrounds_are_named_and_undocumented_values_kept():
    counts = statistics.count([a_file()])
    assert counts["backgrounds"] == {"zoo or human habitation": 1, "undocumented value 88": 1}


def test_the_long_tail_is_what_sorted_numbers_say():
    tail = statistics.long_tail(
        {"a": 60, "b": 30, "c": 10, "d": 0} | {f"s{i}": 1 for i in range(9)}
    )
    assert tail["species_with_half_of_the_animals"] == 1
    assert tail["share_of_ten_largest"] == round(107 / 109, 4)
    assert tail["species_with_fewer_than_50_animals"] == 11
    assert tail["species_without_animals"] == ["d"]
    assert list(tail["largest"].items())[:3] == [("a", 60), ("b", 30), ("c", 10)]


def test_ids_of_two_files_are_not_mixed_up():
    counts = statistics.count([a_file(), a_file()])
    assert counts["animals_per_image"] == {0: 2, 1: 2, 3: 2}
    assert counts["per_family"]["Canidae"]["images"] == 4


def test_nothing_is_a_data_set_of_nothing():
    counts = statistics.count([{"images": [], "annotations": [], "categories": []}])
    assert counts["animals"] == 0
    assert "0 images, 0 animals" in describe.text(counts, "nothing")


def test_the_official_records_have_their_known_numbers(tmp_path, monkeypatch, capsys):
    path = shared("data/ap10k_real/ap10k-train-split1.json")
    assert run(monkeypatch, path, f"--json={tmp_path}/a.json", f"--csv={tmp_path}/a.csv") == 0
    counts = json.loads((tmp_path / "a.json").read_text())
    assert (counts["images"], counts["animals"]) == (7023, 9122)
    assert (counts["species_with_animals"], counts["families_with_animals"]) == (50, 21)
    assert counts["long_tail"]["species_without_animals"] == [
        "arctic fox",
        "bat",
        "mole",
        "orangutan",
    ]
    assert counts["areas"] == {"small": 1, "medium": 294, "large": 8827}
    assert counts["image_sizes"]["median"] == [1024, 683]
    assert counts["image_sizes"]["largest"] == [6000, 4000]
    assert max(map(int, counts["animals_per_image"])) == 13
    assert counts["backgrounds"]["undocumented value 88"] == 1
    assert all(found["hidden"] == 0 for found in counts["keypoints"].values())
    with (tmp_path / "a.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 54
    assert sum(int(row["animals"]) for row in rows) == 9122
    assert all(taxonomy.family_of(row["species"]) == row["family"] for row in rows)
    said = capsys.readouterr()
    assert "7,023 images, 9,122 animals of 50 species in 21 families" in said.out
    assert not said.err


def test_a_folder_and_a_zip_file_are_all_three_parts_of_one_split(tmp_path, monkeypatch, capsys):
    root = tiny_ap10k.write(tmp_path / "ap-10k")
    assert run(monkeypatch, root) == 0
    said = capsys.readouterr().out
    assert "7 images, 7 animals of 2 species in 2 families (54 and 23 are named)" in said
    archive = tmp_path / "ap-10k.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(root.rglob("*.*")):
            file.write(path, path.relative_to(tmp_path))
    assert run(monkeypatch, archive, f"--sheet={tmp_path}/sheet.png") == 0
    assert "7 images, 7 animals" in capsys.readouterr().out
    assert cv2.imread(str(tmp_path / "sheet.png")) is not None


def test_a_photograph_in_two_files_is_counted_once(tmp_path, monkeypatch, capsys):
    root = tiny_ap10k.write(tmp_path / "a")
    files = sorted((root / "annotations").glob("*.json"))  # three splits of the same photographs
    assert run(monkeypatch, *files) == 0
    assert "7 images, 7 animals" in capsys.readouterr().out


def test_flawed_records_are_left_out_and_that_is_said(tmp_path, monkeypatch, capsys):
    files = tiny_ap10k.contents()
    files["train"]["images"][0]["width"] = "wide"  # its animal goes with it
    files["train"]["annotations"][1]["bbox"] = [1]
    root = tiny_ap10k.write(tmp_path / "a", files)
    path = root / "annotations/ap10k-train-split1.json"
    assert run(monkeypatch, path) == 0
    said = capsys.readouterr()
    assert "3 images, 2 animals" in said.out
    assert "Left out because of 2 problems" in said.err
    assert "annotation 30: bbox: not four numbers" in said.err


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"images": {}}', '{"images": 3}'])
def test_what_holds_no_annotations_is_refused_without_a_traceback(
    tmp_path, monkeypatch, capsys, content
):
    path = tmp_path / "a.json"
    path.write_text(content)
    for given in (path, tmp_path, tmp_path / "nowhere.json"):
        assert run(monkeypatch, given) == 1
        assert capsys.readouterr().err


def test_animal_pose_and_coco_are_described_as_they_come(tmp_path, monkeypatch, capsys):
    # Their own layouts, made by the tests of their builders.
    import test_animal_pose
    import test_coco_keypoints

    test_animal_pose.write(tmp_path / "a", test_animal_pose.contents(10))
    assert run(monkeypatch, tmp_path / "a", f"--sheet={tmp_path}/a.png") == 0
    said = capsys.readouterr().out
    assert "10 images, 10 animals of 5 species in 4 families" in said
    assert "withers" in said
    val = test_coco_keypoints.content([1, 2])
    val["annotations"][0]["iscrowd"] = 1
    test_coco_keypoints.write(tmp_path / "b", val2017=val)
    assert run(monkeypatch, tmp_path / "b", f"--sheet={tmp_path}/b.png") == 0
    assert "3 images, 3 animals of 1 species" in capsys.readouterr().out


def test_bars_are_as_long_as_there_are_animals_and_every_species_is_named():
    coco = a_file()
    figure = figures.draw_species(statistics.count([coco]), "three")
    (axis,) = figure.axes
    assert [bar.get_width() for bar in axis.patches] == [3, 1]
    written = {text.get_text().strip() for text in (*axis.texts, *figure.texts)}
    assert {"Canidae", "dog", "fox", "3", "1", "Without animals: bat"} <= written


def test_columns_share_one_scale_and_hold_every_family_whole():
    path = shared("data/ap10k_real/ap10k-train-split1.json")
    counts = statistics.count([json.loads(path.read_text())])
    figure = figures.draw_species(counts, "AP-10K")
    width = figure.get_figwidth()
    scales = [axis.get_position().width * width / axis.get_xlim()[1] for axis in figure.axes]
    assert len(scales) == 3
    np.testing.assert_allclose(scales, scales[0])
    bars = [bar.get_width() for axis in figure.axes for bar in axis.patches]
    assert (len(bars), sum(bars)) == (50, 9122)
    words = [text.get_text().strip() for axis in figure.axes for text in axis.texts]
    assert words.index("Bovidae") < words.index("argali sheep") < words.index("Felidae")


def photographed(tmp_path, species=("dog", "fox", "cat", "lion", "cow")):
    """A COCO dict with three photographs of each species, in tmp_path."""
    coco = tiny_ap10k.contents()["train"] | {"images": [], "annotations": []}
    for number in range(3 * len(species)):
        name = f"{number}.jpg"
        (tmp_path / name).write_bytes(tiny_ap10k.jpeg(number))
        coco["images"].append({"id": number, "file_name": name, "width": 40, "height": 30})
        species_id = taxonomy.id_of(species[number % len(species)])
        coco["annotations"].append(tiny_ap10k.animal(number, number, species_id))
    return coco


def test_examples_are_of_every_family_then_of_every_species_then_again(tmp_path):
    places = [(photographed(tmp_path), [tmp_path])]

    def names(number, seed=1):
        return [chosen[1] for chosen in figures.choose(places, number, seed)]

    assert sorted(map(taxonomy.family_of, names(3))) == ["Bovidae", "Canidae", "Felidae"]
    assert sorted(names(5)) == ["cat", "cow", "dog", "fox", "lion"]
    assert sorted(names(10)) == sorted(2 * names(5))
    families = [taxonomy.family_of(name) for name in names(15)]
    assert families == sorted(families)
    assert len({tuple(names(3, seed)) for seed in range(20)}) > 1
    images = [[e[3]["id"] for e in figures.choose(places, 15, seed)] for seed in (1, 1, 2)]
    assert images[0] == images[1] != images[2]
    assert len(set(images[0])) == 15


def test_only_photographs_that_are_there_are_shown(tmp_path):
    coco = photographed(tmp_path)
    for number in range(14):
        (tmp_path / f"{number}.jpg").unlink()
    chosen = figures.choose([(coco, [tmp_path / "nowhere", tmp_path])], 24, seed=0)
    assert [image["id"] for _, _, _, image, _ in chosen] == [14]
    (tmp_path / "14.jpg").unlink()
    with pytest.raises(figures.NoPhotographs, match="--images"):
        figures.choose([(coco, [tmp_path])], 24, seed=0)


@pytest.mark.parametrize("box", [(300, 200, 120, 90), (0, 0, 640, 480), (10, 10, 15, 400)])
def test_joints_are_drawn_where_they_are_in_the_photograph(tmp_path, box):
    x, y = box[0] + 0.4 * box[2], box[1] + 0.6 * box[3]
    picture = np.zeros((480, 640, 3), np.uint8)
    cv2.circle(picture, (round(x), round(y)), 4, (0, 255, 0), cv2.FILLED)
    cv2.imwrite(str(tmp_path / "a.png"), picture)
    animal = {"bbox": list(box), "keypoints": [round(x), round(y), 0] + [0] * 48}
    image = {"file_name": "a.png", "width": 640, "height": 480}
    plain = figures.annotated(tmp_path, image, [animal], keypoints.AP10K)
    animal["keypoints"][2] = 2
    drawn = figures.annotated(tmp_path, image, [animal], keypoints.AP10K)
    assert plain.shape == drawn.shape == (240, 320, 3)
    green = (plain[..., 1] > 128) & (plain[..., 0] < 100) & (plain[..., 2] < 100)
    orange = np.abs(drawn.astype(int) - visualize.COLORS["left"]).sum(axis=-1) < 40
    assert green.any()
    assert orange.any()
    np.testing.assert_allclose(
        np.argwhere(orange).mean(axis=0), np.argwhere(green).mean(axis=0), atol=1
    )


def test_the_joints_are_those_that_the_file_names_and_connects():
    joints = figures.joints(a_file())
    assert joints.names == keypoints.AP10K.names
    assert joints.skeleton == keypoints.AP10K.skeleton


def test_a_sheet_without_photographs_is_an_error_that_helps(tmp_path, monkeypatch, capsys):
    root = tiny_ap10k.write(tmp_path / "a")
    for path in (root / "data").iterdir():
        path.rename(tmp_path / path.name)
    flags = (root, f"--sheet={tmp_path}/sheet.png")
    assert run(monkeypatch, *flags) == 1
    assert "--images=FOLDER" in capsys.readouterr().err
    assert run(monkeypatch, *flags, f"--images={tmp_path}") == 0
    assert run(monkeypatch, root, f"--figure={tmp_path}/figure.png") == 0
    for name in ("sheet.png", "figure.png"):
        assert cv2.imread(str(tmp_path / name)).std() > 10
    assert run(monkeypatch, root, f"--figure={tmp_path}/figure.docx") == 1
    assert "docx" in capsys.readouterr().err


def test_a_photograph_of_another_size_is_refused_not_drawn_wrongly(tmp_path, monkeypatch, capsys):
    root = tiny_ap10k.write(tmp_path / "a")
    for path in (root / "data").iterdir():
        path.write_bytes(tiny_ap10k.jpeg(1, width=20, height=15))
    assert run(monkeypatch, root, f"--sheet={tmp_path}/sheet.png") == 1
    assert "has 20x15 pixels, its record says 40x30" in capsys.readouterr().err
