"""AP is the reference's AP, and whatever would silently change it is refused or counted."""

import copy
import json

import golden_files
import numpy as np
import pytest

from ap10k_jax import bootstrap, keypoints, metrics, transforms

# Golden name of a sigma vector -> ours.
VECTORS = {"sigmas_2021_12": "corrected", "sigmas_paper": "paper"}


def coco(animals, size=(640, 480)):
    """A COCO dict of (image, species, box) triples, joints spread over the boxes."""
    rng = np.random.default_rng(0)
    annotations = []
    for i, (image, species, box) in enumerate(animals):
        points = np.add(box[:2], rng.uniform(0.1, 0.9, (17, 2)) * box[2:])
        annotations.append(
            {
                "id": 100 + i,
                "image_id": image,
                "category_id": species,
                "bbox": list(box),
                "area": box[2] * box[3],
                "iscrowd": 0,
                "num_keypoints": 17,
                "keypoints": np.column_stack([points, np.full(17, 2)]).ravel().tolist(),
            }
        )
    names = {1: ("antelope", "Bovidae"), 5: ("cow", "Bovidae"), 8: ("dog", "Canidae")}
    names |= {9: ("fox", "Canidae")}
    return {
        "images": [
            {"id": image, "width": size[0], "height": size[1]}
            for image in sorted({image for image, _, _ in animals})
        ],
        "annotations": annotations,
        "categories": [
            {"id": id, "name": name, "supercategory": family}
            for id, (name, family) in names.items()
        ],
    }


def truth_as_predictions(annotations, score=0.9):
    """Predictions that are right to the pixel."""
    return [
        {
            "id": a["id"],
            "image_id": a["image_id"],
            "category_id": a["category_id"],
            "keypoints": np.array(a["keypoints"]).reshape(17, 3) * [1, 1, 0] + [0, 0, score],
        }
        for a in annotations["annotations"]
    ]


BOX = (100, 100, 200, 150)
THREE_SPECIES = [(1, 1, BOX), (2, 1, BOX), (3, 5, BOX), (4, 8, BOX), (5, 8, BOX)]


@pytest.mark.parametrize("golden_name", VECTORS)
def test_statistics_agree_with_the_reference(golden_name):
    annotations = json.loads(golden_files.shared("golden/eval_ground_truth.json").read_text())
    golden = golden_files.copy("eval_predictions.npz")
    predictions = [
        {
            "id": int(golden["id"][i]),
            "image_id": int(golden["image_id"][i]),
            "category_id": int(golden["category_id"][i]),
            "keypoints": np.column_stack([golden["keypoints"][i], golden["keypoint_scores"][i]]),
        }
        for i in range(len(golden["id"]))
    ]
    expected = json.loads((golden_files.COPIES / "eval_stats.json").read_text())[golden_name]
    result = metrics.evaluate(annotations, predictions, sigmas=VECTORS[golden_name])
    names = dict(zip(metrics.STATISTICS, expected, strict=True))
    assert {name: result[name] for name in names} == pytest.approx(
        {name: expected[theirs] for name, theirs in names.items()}, abs=1e-6
    )
    assert result["sigmas"] == VECTORS[golden_name]
    assert np.mean(list(result["per_species"].values())) == pytest.approx(result["AP"])


def test_truth_scores_one():
    annotations = coco([*THREE_SPECIES, (5, 9, (400, 300, 60, 50))])
    result = metrics.evaluate(annotations, truth_as_predictions(annotations))
    assert [result[name] for name in metrics.STATISTICS] == pytest.approx([1] * 10)
    assert result["per_species"] == pytest.approx({"antelope": 1, "cow": 1, "dog": 1, "fox": 1})
    assert result["num_animals"] == {"antelope": 2, "cow": 1, "dog": 2, "fox": 1}
    assert result["num_missing"] == result["num_wrong_category"] == 0


@pytest.mark.parametrize("first", [-3, 0, 1, 10**12])
@pytest.mark.parametrize("kind", ["annotations", "images", "categories"])
def test_perfect_predictions_score_one_whatever_the_ids_are(first, kind):
    annotations = coco(THREE_SPECIES)
    new = {record["id"]: first + i for i, record in enumerate(annotations[kind])}
    for record in annotations[kind]:
        record["id"] = new[record["id"]]
    field = {"annotations": "id", "images": "image_id", "categories": "category_id"}[kind]
    if kind != "annotations":
        for animal in annotations["annotations"]:
            animal[field] = new[animal[field]]
    predictions = truth_as_predictions(annotations)
    result = metrics.evaluate(annotations, predictions)
    assert result["AP"] == result["AR"] == 1
    assert result["num_missing"] == result["num_wrong_category"] == 0
    found = bootstrap.intervals(annotations, predictions, resamples=5)
    assert found["AP"] == [1, 1]


def with_crowd(annotations, image, species, box, **fields):
    """The annotations with a crowd, which has no labelled joint unless `fields` say so."""
    crowd = {"id": 900, "image_id": image, "category_id": species, "bbox": list(box)}
    crowd |= {"area": box[2] * box[3], "iscrowd": 1, "num_keypoints": 0, "keypoints": [0] * 51}
    return annotations | {"annotations": [*annotations["annotations"], crowd | fields]}


@pytest.mark.parametrize("labelled", [False, True])
def test_a_species_of_crowds_only_has_no_ap_and_leaves_its_family_alone(labelled):
    annotations = coco(THREE_SPECIES)
    joints = annotations["annotations"][0]["keypoints"]
    fields = {"keypoints": joints, "num_keypoints": 17} if labelled else {}
    crowded = with_crowd(annotations, 4, 9, BOX, **fields)  # foxes, beside the dogs
    predictions = truth_as_predictions(annotations)
    result = metrics.evaluate(crowded, predictions)
    np.testing.assert_equal(result, metrics.evaluate(annotations, predictions))
    assert "fox" not in result["per_species"]
    assert result["per_family"]["Canidae"] == 1
    found = bootstrap.intervals(crowded, predictions, resamples=5)
    assert found == bootstrap.intervals(annotations, predictions, resamples=5)


def test_a_crowd_is_never_missed():
    annotations = coco(THREE_SPECIES)
    joints = annotations["annotations"][0]["keypoints"]
    crowded = with_crowd(annotations, 4, 8, BOX, keypoints=joints, num_keypoints=17)
    result = metrics.evaluate(crowded, truth_as_predictions(annotations))
    assert result["num_missing"] == 0
    assert result["num_animals"]["dog"] == 2
    assert result["AP"] == 1


def test_a_wrong_prediction_within_a_crowd_counts_neither_way():
    # The antelope of image 1 is found, certainly, where a crowd of antelopes is: no false alarm.
    annotations = coco([(1, 1, BOX), (2, 1, BOX)])
    predictions = truth_as_predictions(annotations)
    predictions[0]["keypoints"] = np.add(predictions[0]["keypoints"], [300, 0, 0.1])
    alone = metrics.evaluate(annotations, predictions)["AP"]
    crowded = with_crowd(annotations, 1, 1, (400, 100, 200, 150))
    result = metrics.evaluate(crowded, predictions)
    # Both to be found, one found, precision 1 up to half the recall: 51 of 101 recalls.
    assert result["AP"] == pytest.approx(51 / 101)
    assert alone == pytest.approx(51 / 101 / 2)
    once = np.ones((1, 2), int)
    ((_, matches),) = bootstrap._matches(metrics.compare(crowded, predictions, "corrected"))
    assert bootstrap._resampled(once, *matches)[0] == pytest.approx(result["AP"])


def test_where_there_are_only_crowds_nothing_is_measured():
    annotations = coco([(1, 1, BOX)])
    predictions = truth_as_predictions(annotations)
    annotations["annotations"][0]["iscrowd"] = 1
    result = metrics.evaluate(annotations, predictions)
    assert all(np.isnan(result[name]) for name in metrics.STATISTICS)
    assert result["per_species"] == result["per_family"] == result["num_animals"] == {}


@pytest.mark.parametrize("field", ["iscrowd", "num_keypoints"])
def test_fields_that_follow_from_the_others_may_be_absent(field):
    annotations = coco(THREE_SPECIES)
    predictions = truth_as_predictions(annotations)
    for animal in annotations["annotations"]:
        del animal[field]
    assert metrics.evaluate(annotations, predictions)["AP"] == 1


def test_ap_is_the_mean_over_species_not_over_animals():
    # Four antelopes right, the only dog wrong: 0.5, not 0.8. The family of both cows has its own.
    annotations = coco([(1, 1, BOX), (2, 1, BOX), (3, 1, BOX), (4, 1, BOX), (5, 8, BOX)])
    predictions = truth_as_predictions(annotations)
    predictions[-1]["keypoints"] = predictions[-1]["keypoints"] + [300, 0, 0]
    result = metrics.evaluate(annotations, predictions)
    assert result["AP"] == pytest.approx(0.5)
    assert result["per_family"] == pytest.approx({"Bovidae": 1, "Canidae": 0})


def test_family_is_the_mean_over_its_species():
    annotations = coco([(1, 1, BOX), (2, 1, BOX), (3, 5, BOX)])
    predictions = truth_as_predictions(annotations)
    predictions[2]["keypoints"] = predictions[2]["keypoints"] + [300, 0, 0]
    result = metrics.evaluate(annotations, predictions)
    assert result["per_family"] == pytest.approx({"Bovidae": 0.5})


def test_one_category_for_all_ruins_ap_and_is_counted():
    # The slip that has been made in public: right joints, every animal called an antelope.
    annotations = coco(THREE_SPECIES)
    predictions = [p | {"category_id": 1} for p in truth_as_predictions(annotations)]
    message = (
        "^3 of 5 predictions have another category than the annotation whose box was used: AP, the "
        "mean over species, counts them as wrong animals$"
    )
    with pytest.warns(UserWarning, match=message) as warned:
        result = metrics.evaluate(annotations, predictions)
    assert warned[0].filename == __file__  # who passed them in is named
    assert result["AP"] <= 1 / 3
    assert result["per_species"]["cow"] == result["per_species"]["dog"] == 0
    assert result["num_wrong_category"] == 3


def test_missing_animals_are_counted_and_count_as_misses():
    annotations = coco(THREE_SPECIES)
    result = metrics.evaluate(annotations, truth_as_predictions(annotations)[1:])
    assert result["num_missing"] == 1
    # one antelope of two: precision 1 up to recall 0.5, so 51 of COCO's 101 recalls
    assert result["per_species"]["antelope"] == pytest.approx(51 / 101)


def test_statistics_are_the_ten_of_coco():
    names = ("AP", "AP50", "AP75", "APM", "APL", "AR", "AR50", "AR75", "ARM", "ARL")
    assert names == metrics.STATISTICS


@pytest.mark.parametrize("point", [(0, 0, 0), (5, 7, 0)])  # hidden joints may have a place
def test_unlabelled_animals_are_not_missed(point):
    annotations = coco(THREE_SPECIES)
    annotations["annotations"][0] |= {"keypoints": [*point] * 17, "num_keypoints": 0}
    result = metrics.evaluate(annotations, truth_as_predictions(annotations)[1:])
    assert result["num_missing"] == 0
    assert result["AP"] == pytest.approx(1)
    assert result["num_animals"]["antelope"] == 1


def test_one_labelled_joint_makes_an_animal():
    annotations = coco(THREE_SPECIES)
    keypoints_of_one = [0] * 51
    keypoints_of_one[3:6] = 150, 160, 1
    annotations["annotations"][0] |= {"keypoints": keypoints_of_one, "num_keypoints": 1}
    result = metrics.evaluate(annotations, truth_as_predictions(annotations)[1:])
    assert result["num_missing"] == 1
    assert result["num_animals"]["antelope"] == 2


def test_instance_view_makes_all_species_one_and_changes_nothing_it_is_given():
    # Four antelopes right, the only dog wrong. Precision 1 up to recall 0.8: 81 of 101 recalls.
    annotations = coco([(1, 1, BOX), (2, 1, BOX), (3, 1, BOX), (4, 1, BOX), (5, 8, BOX)])
    annotations["categories"].reverse()  # whichever comes first becomes number 1
    annotations["categories"][0]["keypoints"] = list(keypoints.AP10K.names)
    predictions = truth_as_predictions(annotations)
    predictions[-1]["keypoints"] = predictions[-1]["keypoints"] + [300, 0, -0.5]
    before = copy.deepcopy((annotations, predictions))
    view = metrics.instance_view(annotations, predictions)
    result = metrics.evaluate(*view)
    assert result["AP"] == pytest.approx(81 / 101)
    assert result["per_species"] == {"animal": result["AP"]}
    assert result["per_family"] == {"all": result["AP"]}
    assert result["num_wrong_category"] == 0
    assert view[0]["categories"][0]["keypoints"] == list(keypoints.AP10K.names)
    np.testing.assert_equal((annotations, predictions), before)


def test_statistics_of_absent_sizes_are_nan_not_minus_one():
    annotations = coco(THREE_SPECIES)  # all large
    result = metrics.evaluate(annotations, truth_as_predictions(annotations))
    assert np.isnan(result["APM"])
    assert result["APL"] == pytest.approx(1)


def test_sigma_vectors_matter():
    # Only the left elbow is off: 'corrected' is stricter there than 'paper'.
    annotations = coco([(1, 1, BOX)])
    predictions = truth_as_predictions(annotations)
    predictions[0]["keypoints"][6, 0] += 40
    truth = np.array(annotations["annotations"][0]["keypoints"]).reshape(17, 3)[:, :2]
    corrected, paper = (
        metrics.oks(truth, predictions[0]["keypoints"][:, :2], 30000, sigmas=metrics.SIGMAS[name])
        for name in ("corrected", "paper")
    )
    assert corrected < paper
    with pytest.raises(ValueError, match="'coco': choose from corrected, paper"):
        metrics.evaluate(annotations, predictions, sigmas="coco")


def test_annotations_may_be_a_file_and_are_not_changed(tmp_path):
    annotations = coco(THREE_SPECIES)
    before = copy.deepcopy(annotations)
    predictions = truth_as_predictions(annotations)
    result = metrics.evaluate(annotations, predictions)
    assert annotations == before
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(annotations))
    np.testing.assert_equal(metrics.evaluate(path, predictions), result)
    np.testing.assert_equal(metrics.evaluate(str(path), predictions), result)


def test_evaluation_prints_nothing(capsys):
    annotations = coco(THREE_SPECIES)
    metrics.evaluate(annotations, truth_as_predictions(annotations))
    assert capsys.readouterr().out == ""


def test_order_of_predictions_does_not_matter():
    annotations = coco(THREE_SPECIES)
    predictions = truth_as_predictions(annotations)
    for i, row in enumerate(predictions):
        row["keypoints"][:, :2] += 3 * i
    np.testing.assert_equal(
        metrics.evaluate(annotations, predictions[::-1]), metrics.evaluate(annotations, predictions)
    )


# What is wrong with the prediction at place 1, and words of the message.
WRONG = [
    ({"category_id": None}, "without category_id"),
    ({"category_id": 999}, "unknown category 999"),
    ({"image_id": 999}, "unknown image 999"),
    ({"image_id": 4}, "in image 2, not 4"),
    ({"id": 999}, "unknown annotation"),
    ({"id": 100, "image_id": 1}, "one of 2 for this annotation"),
    ({"keypoints": np.zeros((20, 3))}, r"shape \(20, 3\), not \(17, 3\)"),
    ({"keypoints": np.zeros((17, 2))}, r"shape \(17, 2\)"),
    ({"keypoints": np.full((17, 3), np.nan)}, "not finite"),
    ({"keypoints": np.full((17, 3), np.inf)}, "not finite"),
]


@pytest.mark.parametrize(("change", "message"), WRONG)
def test_predictions_that_do_not_fit_are_refused(change, message):
    annotations = coco(THREE_SPECIES)
    predictions = truth_as_predictions(annotations)
    predictions[1] |= change
    predictions[1] = {name: value for name, value in predictions[1].items() if value is not None}
    with pytest.raises(ValueError, match=message):
        metrics.evaluate(annotations, predictions)


def test_every_problem_is_listed_at_once():
    annotations = coco(THREE_SPECIES)
    predictions = truth_as_predictions(annotations)
    predictions[0]["image_id"] = 77
    del predictions[3]["category_id"]
    with pytest.raises(
        ValueError, match=r"(?s)unknown image 77.*prediction 3.*without category_id"
    ):
        metrics.evaluate(annotations, predictions)


def test_what_a_prediction_lacks_is_named_and_ends_nothing():
    annotations = coco(THREE_SPECIES)
    predictions = truth_as_predictions(annotations)
    del predictions[0]["keypoints"], predictions[0]["category_id"]
    predictions[1]["image_id"] = 77
    lines = r"(?s)\(annotation 100\): without category_id, keypoints\n.*unknown image 77$"
    with pytest.raises(ValueError, match=lines):
        metrics.evaluate(annotations, predictions)


@pytest.mark.parametrize(
    ("wrong", "more"), [(20, ""), (21, "\n... and 1 more"), (23, "\n... and 3 more")]
)
def test_twenty_problems_are_listed_and_the_others_counted(wrong, more):
    annotations = coco([(i, 1, BOX) for i in range(1, wrong + 1)])
    predictions = [p | {"category_id": 999} for p in truth_as_predictions(annotations)]
    with pytest.raises(ValueError, match="cannot evaluate") as error:
        metrics.evaluate(annotations, predictions)
    listed = [f"prediction {i} (annotation {100 + i}): unknown category 999" for i in range(20)]
    assert str(error.value) == "\n".join(["cannot evaluate:", *listed]) + more


def test_no_predictions_are_refused():
    with pytest.raises(ValueError, match=r"^cannot evaluate:\nthere are no predictions$"):
        metrics.evaluate(coco(THREE_SPECIES), [])


# --- OKS and its suppression of duplicates


def test_oks_by_hand():
    # One joint off by d: exp(-d^2 / (2 (2 sigma)^2 area)); the nose at 3 px, area 900.
    truth = np.zeros((17, 2))
    predicted = truth.copy()
    predicted[2] = 0, 3
    one = np.exp(-9 / (2 * (2 * 0.026) ** 2 * 900))
    assert metrics.oks(truth, predicted, 900) == pytest.approx((16 + one) / 17)
    visible = np.arange(17) == 2
    assert metrics.oks(truth, predicted, 900, visible=visible) == pytest.approx(one)
    assert metrics.oks(truth, predicted, 900, visible=~visible) == 1
    assert metrics.oks(truth, predicted, 900, visible=np.zeros(17)) == 0


def test_oks_of_an_animal_without_area_is_no_division_by_zero():
    truth = np.zeros((17, 2))
    assert metrics.oks(truth, truth, 0) == 1
    assert metrics.oks(truth, truth + 1, 0) == 0


def test_oks_counts_joints_of_any_visibility_once():
    # COCO's 1 (hidden) and 2 (visible) are both labelled.
    truth, predicted = np.random.default_rng(0).uniform(0, 20, (2, 17, 2))
    visibility = np.arange(17) % 3
    expected = metrics.oks(truth, predicted, 900, visible=visibility > 0)
    assert metrics.oks(truth, predicted, 900, visible=visibility) == expected


def test_oks_takes_batches():
    rng = np.random.default_rng(0)
    truth, predicted = rng.uniform(0, 20, (2, 4, 17, 2))
    areas, visible = rng.uniform(100, 1000, 4), rng.random((4, 17)) < 0.5
    together = metrics.oks(truth, predicted, areas, visible=visible)
    for i in range(4):
        alone = metrics.oks(truth[i], predicted[i], areas[i], visible=visible[i])
        assert together[i] == pytest.approx(alone)


def test_nms_keeps_the_better_of_two_equal_poses_and_leaves_others_alone():
    pose = np.random.default_rng(0).uniform(0, 100, (17, 2))
    poses = np.stack([pose, pose + 0.5, pose + 200])
    scores, areas = np.array([0.5, 0.9, 0.1]), np.full(3, 1e4)
    assert metrics.oks_nms(poses, scores, areas) == [1, 2]
    assert metrics.oks_nms(poses, scores[[1, 0, 2]], areas) == [0, 2]


def test_nms_threshold_is_inclusive():
    # Two poses that are exactly as similar as the threshold are both kept.
    poses = np.zeros((2, 17, 2))
    poses[1, :8] = 1e6
    similarity = float(metrics.oks(poses[0], poses[1], 100.0))
    assert similarity == pytest.approx(9 / 17)
    keep = {
        t: metrics.oks_nms(poses, np.ones(2), np.full(2, 100.0), threshold=t)
        for t in (similarity, 0.5)
    }
    assert keep == {similarity: [1, 0], 0.5: [1]}


def test_oks_of_whole_numbers_goes_below_zero():
    truth, predicted = np.full((2, 17, 2), [[[3]], [[200]]], np.uint8)
    expected = metrics.oks(truth.astype(float), predicted.astype(float), 1e6)
    assert metrics.oks(truth, predicted, 1000000) == expected == metrics.oks(predicted, truth, 1e6)


def test_nms_keeps_poses_of_equal_score_from_the_last_to_the_first():
    # many, for sorting may be stable for a few by chance
    poses = np.arange(40)[:, None, None] * 1e4 + np.zeros((17, 2))
    assert metrics.oks_nms(poses, np.ones(40), np.full(40, 100.0)) == [*range(39, -1, -1)]
    scores = np.random.default_rng(0).choice([0.25, 0.5, 0.75], 40)
    expected = sorted(range(40), key=lambda i: (scores[i], i), reverse=True)
    assert metrics.oks_nms(poses, scores, np.full(40, 100.0)) == expected


def test_nms_measures_with_the_mean_of_both_areas():
    # 9 joints of both poses agree; the 8 others are as far apart as `threshold` by the mean area.
    poses = np.zeros((2, 17, 2))
    poses[1, :8, 0] = 3
    similarity = {area: float(metrics.oks(*poses, area)) for area in (300, 400, 500)}
    for threshold, kept in ((similarity[300], [0]), (similarity[500], [0, 1])):
        for areas in ((300.0, 500.0), (500.0, 300.0)):
            got = metrics.oks_nms(poses, np.array([2, 1]), np.array(areas), threshold=threshold)
            assert got == kept


def test_a_kept_pose_suppresses_only_its_own_duplicates():
    # b is like a, c is like b but not like a: b goes, and so cannot take c with it.
    pose = np.zeros((17, 2))
    shift = next(d for d in np.linspace(0, 10, 2000) if metrics.oks(pose, pose + d, 1e3) < 0.92)
    poses = np.stack([pose, pose + shift, pose + 2 * shift])
    assert metrics.oks_nms(poses, np.array([3.0, 2.0, 1.0]), np.full(3, 1e3)) == [0, 2]


def test_overlapping_species_in_one_image_compete():
    # Two animals of two species predicted at the same place: the less certain one is lost.
    annotations = coco([(1, 1, BOX), (1, 8, BOX)])
    annotations["annotations"][1]["keypoints"] = annotations["annotations"][0]["keypoints"]
    first, second = truth_as_predictions(annotations)
    second["keypoints"][:, 2] = 0.5
    result = metrics.evaluate(annotations, [first, second])
    assert result["per_species"] == pytest.approx({"antelope": 1, "dog": 0})
    assert result["num_missing"] == 0
    # in different images they do not
    annotations = coco([(1, 1, BOX), (2, 8, BOX)])
    result = metrics.evaluate(annotations, truth_as_predictions(annotations))
    assert result["AP"] == pytest.approx(1)


def twins(box, second):
    """Two animals with one box, the second's joints given; and predictions right to the pixel."""
    annotations = coco([(1, 1, box), (1, 1, box)])
    second = np.column_stack([second(pose_of(annotations["annotations"][0])), np.full(17, 2)])
    annotations["annotations"][1]["keypoints"] = second.ravel().tolist()
    return annotations, truth_as_predictions(annotations)


def pose_of(annotation):
    return np.array(annotation["keypoints"]).reshape(17, 3)[:, :2]


def test_nms_measures_with_the_crops_area():
    # A flat box has a square, padded crop, many times larger: by the box's own area these two
    # would be different animals, by the crop's they are one, and one of them is lost.
    box = (50, 200, 400, 20)
    annotations, predictions = twins(box, lambda pose: pose + np.array([4, 0]))
    xy = [pose_of(a) for a in annotations["annotations"]]
    _, scale = transforms.box_to_center_scale(box, (640, 480))
    assert metrics.oks(*xy, 400 * 20) < 0.9 < metrics.oks(*xy, scale.prod())
    assert metrics.evaluate(annotations, predictions)["AR"] == pytest.approx(0.5)


def test_nms_measures_with_the_sigmas_of_the_evaluation():
    # Twins that differ where the paper's sigmas are larger: one animal to it, two to ours.
    paper = np.array(metrics.SIGMAS["paper"])
    wider = (paper > metrics.SIGMAS["corrected"])[:, None]
    annotations, predictions = twins((100, 100, 100, 100), lambda pose: pose + wider * [20, 0])
    results = {s: metrics.evaluate(annotations, predictions, sigmas=s) for s in metrics.SIGMAS}
    assert {s: result["AR"] for s, result in results.items()} == {"corrected": 1, "paper": 0.5}


def test_nms_measures_places_not_scores():
    # One small pose twice, the second of little certainty: still the same animal.
    annotations, predictions = twins((100, 100, 4, 4), lambda pose: pose)
    predictions[1]["keypoints"][:, 2] = 0.1
    assert metrics.evaluate(annotations, predictions)["AR"] == pytest.approx(0.5)


def four_joints(**declared):
    """An antelope of 100 x 100 pixels with four joints, and a prediction 10 pixels off at each."""
    annotations = coco([(1, 1, (100, 100, 100, 100))])
    for category in annotations["categories"]:
        category |= {"keypoints": ["nose", "left_ear", "right_ear", "tail"], **declared}
    (animal,) = annotations["annotations"]
    animal |= {"keypoints": animal["keypoints"][:12], "num_keypoints": 4}
    points = np.add(np.reshape(animal["keypoints"], (4, 3)), [6, 8, -1.5])
    row = {name: animal[name] for name in ("id", "image_id", "category_id")}
    return annotations, [row | {"keypoints": points}]


@pytest.mark.parametrize(
    ("declared", "name"),
    [({}, "uniform 0.05"), ({"sigmas": [0.1, 0.05, 0.05, 0.025]}, "own")],
)
def test_other_joints_are_scored_with_their_own_sigmas(declared, name):
    annotations, predictions = four_joints(**declared)
    result = metrics.evaluate(annotations, predictions)
    # a tenth of sqrt(area) off: similarity exp(-0.1^2 / 2 / (2 sigma)^2) at each joint
    sigmas = np.array(declared.get("sigmas", [0.05] * 4))
    similarity = np.exp(-0.005 / (2 * sigmas) ** 2).mean()
    assert result["AP"] == pytest.approx(np.mean(similarity >= np.arange(0.5, 1, 0.05)))
    assert 0 < result["AP"] < 1
    assert result["sigmas"] == name
    interval = bootstrap.intervals(annotations, predictions, resamples=3)["AP"]
    assert interval == pytest.approx([result["AP"]] * 2)


def test_the_papers_sigmas_are_for_ap10ks_joints_only():
    with pytest.raises(ValueError, match="AP-10K's 17 joints"):
        metrics.evaluate(*four_joints(), sigmas="paper")


def test_naming_ap10ks_joints_changes_no_number():
    annotations = coco([(1, 1, BOX), (1, 8, BOX), (2, 5, BOX)])
    predictions = truth_as_predictions(annotations)
    for row in predictions:
        row["keypoints"][:, :2] += 15
    named = annotations | {
        "categories": [
            c | {"keypoints": list(keypoints.AP10K.names)} for c in annotations["categories"]
        ]
    }
    for sigmas in metrics.SIGMAS:
        result = metrics.evaluate(annotations, predictions, sigmas=sigmas)
        assert 0 < result["AP"] < 1
        assert result["sigmas"] == sigmas
        # it knows nan, of which there are two here, as equal
        np.testing.assert_equal(metrics.evaluate(named, predictions, sigmas=sigmas), result)
        assert metrics.sigmas_of(keypoints.AP10K, sigmas) == (sigmas, metrics.SIGMAS[sigmas])


def test_todays_sigmas_are_the_default():
    assert metrics.sigmas_of(keypoints.AP10K) == ("corrected", metrics.SIGMAS["corrected"])


def test_of_equal_scores_the_later_annotation_wins_in_any_order():
    annotations = coco([(1, 1, BOX), (1, 8, BOX)])
    annotations["annotations"][1]["keypoints"] = annotations["annotations"][0]["keypoints"]
    for order in (1, -1):
        predictions = truth_as_predictions(annotations)[::order]
        result = metrics.evaluate(annotations, predictions)
        assert result["per_species"] == pytest.approx({"antelope": 0, "dog": 1})


def test_score_is_the_mean_of_confident_joints():
    scores = np.zeros((17, 3))
    scores[:4, 2] = 0.2, 0.21, 0.5, 0.9
    assert metrics.instance_score(scores) == pytest.approx((0.21 + 0.5 + 0.9) / 3)
    assert metrics.instance_score(np.zeros((17, 3))) == 0


def test_scores_are_averaged_in_double_precision():
    scores = np.random.default_rng(0).uniform(0.3, 1, (17, 3)).astype(np.float32)
    expected = np.mean(scores[:, 2].astype(float))
    assert expected != np.mean(scores[:, 2])
    assert metrics.instance_score(scores) == expected
