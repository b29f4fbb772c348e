"""The joints agree with themselves and with the official annotation files."""

import dataclasses
import json
import pickle
import re

import numpy as np
import pytest
from golden_files import shared
from pycocotools.cocoeval import Params

from ap10k_jax import keypoints, metrics

SETS = {
    "ap10k": keypoints.AP10K,
    "animal_pose": keypoints.ANIMAL_POSE,
    "coco_person": keypoints.COCO_PERSON,
}


@pytest.mark.parametrize("joints", SETS.values(), ids=SETS)
def test_pairs_are_exactly_the_left_and_right_joints_of_one_name(joints):
    expected = {
        (i, joints.names.index(name.replace("left_", "right_")))
        for i, name in enumerate(joints.names)
        if name.startswith("left_")
    }
    assert set(joints.pairs) == expected
    assert 2 * len(expected) == sum(joints.side(i) != "middle" for i in range(len(joints)))


@pytest.mark.parametrize("joints", SETS.values(), ids=SETS)
def test_skeleton_is_mirror_symmetric_and_reaches_every_joint(joints):
    mirror = keypoints.mirror_order(joints.pairs, len(joints))
    limbs = {frozenset(limb) for limb in joints.skeleton}
    assert limbs == {frozenset((int(mirror[a]), int(mirror[b]))) for a, b in joints.skeleton}
    assert set().union(*limbs) == set(range(len(joints)))


@pytest.mark.parametrize("joints", SETS.values(), ids=SETS)
def test_mirroring_twice_restores_the_order(joints):
    mirror = keypoints.mirror_order(joints.pairs, len(joints))
    np.testing.assert_array_equal(mirror[mirror], np.arange(len(joints)))


def test_ap10k_agrees_with_the_official_file():
    path = shared("data/ap10k_real/test_ap10k.json")
    category = json.loads(path.read_text())["categories"][0]
    assert list(keypoints.AP10K.names) == category["keypoints"]
    limbs = {frozenset((a - 1, b - 1)) for a, b in category["skeleton"]}
    assert {frozenset(limb) for limb in keypoints.AP10K.skeleton} == limbs


def test_animal_pose_has_the_official_order():
    path = shared("data/animal_pose/keypoints.json")
    names = json.loads(path.read_text())["categories"][0]["keypoints"]
    assert [name.replace("_", "") for name in keypoints.ANIMAL_POSE.names] == [
        name.replace("_", "") for name in names
    ]


def test_coco_person_has_the_official_order():
    path = shared("data/coco_person/test_coco.json")
    names = json.loads(path.read_text())["categories"][0]["keypoints"]
    assert list(keypoints.COCO_PERSON.names) == names


@pytest.mark.parametrize("joints", SETS.values(), ids=SETS)
def test_no_limb_is_drawn_twice_nor_ends_where_it_begins(joints):
    limbs = [frozenset(limb) for limb in joints.skeleton]
    assert len(set(limbs)) == len(limbs)
    assert all(len(limb) == 2 for limb in limbs)


def limbs_by_name(joints, limbs, first=0):
    """Sets of two names; the numbers of `limbs` begin with `first`."""
    return {frozenset(joints.names[i - first] for i in limb) for limb in limbs}


def test_limbs_of_animal_pose_are_the_official_ones_and_what_joins_legs_and_head_to_the_back():
    category = json.loads(shared("data/animal_pose/keypoints.json").read_text())["categories"][0]
    joints = keypoints.ANIMAL_POSE
    added = [("throat", "withers")]
    added += [("withers", f"{side}_front_elbow") for side in ("left", "right")]
    added += [("tail_base", f"{side}_back_elbow") for side in ("left", "right")]
    official = limbs_by_name(joints, category["skeleton"])
    assert limbs_by_name(joints, joints.skeleton) == official | set(map(frozenset, added))


def test_limbs_of_persons_are_the_official_ones_but_between_the_eyes_and_from_ears_to_shoulders():
    category = json.loads(shared("data/coco_person/test_coco.json").read_text())["categories"][0]
    joints = keypoints.COCO_PERSON
    without = [("left_eye", "right_eye")]
    without += [(f"{side}_ear", f"{side}_shoulder") for side in ("left", "right")]
    official = limbs_by_name(joints, category["skeleton"], first=1)
    assert set(map(frozenset, without)) < official
    assert limbs_by_name(joints, joints.skeleton) == official - set(map(frozenset, without))


def test_joints_without_an_upper_body_and_sigmas_have_none():
    joints = keypoints.KeypointSet(("a", "b"), (), ())
    assert joints.upper_body == joints.sigmas == ()


def test_corrected_sigmas_are_equal_left_and_right_and_the_papers_are_not():
    # The paper's vector is in COCO's order of joints: that is the mistake which was corrected.
    mirror = keypoints.mirror_order(keypoints.AP10K.pairs, 17)
    corrected, paper = np.array(keypoints.AP10K.sigmas), np.array(keypoints.AP10K_PAPER_SIGMAS)
    np.testing.assert_array_equal(corrected, corrected[mirror])
    assert not np.array_equal(paper, paper[mirror])
    np.testing.assert_array_equal(np.sort(corrected), np.sort(paper))
    np.testing.assert_array_equal(paper[5:], np.array(keypoints.COCO_PERSON.sigmas)[5:])


@pytest.mark.parametrize("joints", SETS.values(), ids=SETS)
def test_every_joint_has_a_sigma(joints):
    assert len(joints.sigmas) == len(joints) == len(set(joints.names))


def test_sigmas_of_persons_are_those_of_pycocotools():
    theirs = Params("keypoints").kpt_oks_sigmas
    np.testing.assert_allclose(keypoints.COCO_PERSON.sigmas, theirs, rtol=1e-6)


def test_sigmas_of_animal_pose_are_those_of_mmpose_joint_by_joint():
    # configs/_base_/datasets/animalpose.py of MMPose 1.3.2: its joints, in its order
    theirs = {
        **{"left_eye": 0.025, "right_eye": 0.025, "left_ear": 0.026, "right_ear": 0.035},
        **{"nose": 0.035, "throat": 0.10, "tail_base": 0.10, "withers": 0.10},
        **{"left_front_elbow": 0.107, "right_front_elbow": 0.107},
        **{"left_back_elbow": 0.107, "right_back_elbow": 0.107},
        **{"left_front_knee": 0.087, "right_front_knee": 0.087},
        **{"left_back_knee": 0.087, "right_back_knee": 0.087},
        **{"left_front_paw": 0.089, "right_front_paw": 0.089},
        **{"left_back_paw": 0.089, "right_back_paw": 0.089},
    }
    joints = keypoints.ANIMAL_POSE
    assert dict(zip(joints.names, joints.sigmas, strict=True)) == theirs
    assert metrics.sigmas_of(joints) == ("own", joints.sigmas)


@pytest.mark.parametrize(
    ("visibilities", "crowd", "labelled", "is_animal"),
    [
        ((2, 0, 1), {}, 2, True),  # hidden joints are labelled, too
        ((0, 0, 1), {"iscrowd": 0}, 1, True),
        ((0, 0, 0), {"iscrowd": 0}, 0, False),
        ((2, 2, 2), {"iscrowd": 1}, 3, False),
    ],
)
def test_an_animal_has_a_labelled_joint_and_is_no_crowd(visibilities, crowd, labelled, is_animal):
    joints = [value for visibility in visibilities for value in (5, 7, visibility)]
    annotation = {"id": 1, "keypoints": joints, **crowd}
    assert keypoints.num_labelled(annotation) == labelled
    assert keypoints.is_crowd(annotation) is bool(crowd.get("iscrowd"))
    assert keypoints.is_animal(annotation) is is_animal


def test_upper_bodies_of_persons_end_at_the_wrists():
    lower = {"hip", "knee", "ankle"}
    names = [name for name in keypoints.COCO_PERSON.names if name.split("_")[-1] not in lower]
    assert [keypoints.COCO_PERSON.names[i] for i in keypoints.COCO_PERSON.upper_body] == names


def test_half_bodies_are_those_of_the_reference():
    lower = set(range(17)) - set(keypoints.AP10K.upper_body)
    assert set(keypoints.AP10K.upper_body) == {0, 1, 2, 3, 5, 6, 7, 8, 9}
    assert lower == {4, 10, 11, 12, 13, 14, 15, 16}


def test_mapped_animal_pose_joints_mean_what_table_11_says():
    stands_for = {"shoulder": "front_elbow", "elbow": "front_knee", "front_paw": "front_paw"}
    stands_for |= {"hip": "back_elbow", "knee": "back_knee", "back_paw": "back_paw"}
    single = {"neck": "throat", "root_of_tail": "tail_base"}
    for ours, theirs in zip(keypoints.AP10K.names, keypoints.ANIMAL_POSE_TO_AP10K, strict=True):
        side, _, part = ours.partition("_")
        expected = f"{side}_{stands_for[part]}" if part in stands_for else single.get(ours, ours)
        assert keypoints.ANIMAL_POSE.names[theirs] == expected


def test_select_moves_whole_rows():
    source = np.arange(2 * 20 * 3).reshape(2, 20, 3)
    selected = keypoints.select(source, keypoints.ANIMAL_POSE_TO_AP10K)
    assert selected.shape == (2, 17, 3)
    np.testing.assert_array_equal(selected[1, 4], source[1, 19])


def test_sets_are_constants_that_travel_to_worker_processes():
    with pytest.raises(dataclasses.FrozenInstanceError):
        keypoints.AP10K.names = ()
    assert pickle.loads(pickle.dumps(keypoints.AP10K)) == keypoints.AP10K
    assert hash(keypoints.AP10K)


def twenty_joints(labelled):
    """A COCO dict with one animal; its joint i is at (i, 100 + i)."""
    points = [(i, 100 + i, 2) if i in labelled else (0, 0, 0) for i in range(20)]
    animal = {"id": 3, "image_id": 7, "category_id": 8, "bbox": [0, 0, 9, 9], "area": 81}
    animal |= {"num_keypoints": len(labelled), "keypoints": [v for point in points for v in point]}
    category = {"id": 8, "name": "dog", "keypoints": list(keypoints.ANIMAL_POSE.names)}
    return {"images": [{"id": 7}], "annotations": [animal], "categories": [category]}


def test_remapped_annotations_have_our_joints_where_theirs_were():
    names, theirs = keypoints.AP10K.names, keypoints.ANIMAL_POSE.names
    labelled = {theirs.index("throat"), theirs.index("left_ear"), theirs.index("right_front_elbow")}
    coco = twenty_joints(labelled)
    before = json.dumps(coco)
    remapped = keypoints.remap_annotations(coco)
    animal = remapped["annotations"][0]
    points = np.reshape(animal["keypoints"], (17, 3))
    assert points[names.index("neck")].tolist() == [17, 117, 2]
    assert points[names.index("right_shoulder")].tolist() == [6, 106, 2]
    assert np.count_nonzero(points[:, 2]) == animal["num_keypoints"] == 2  # no ear
    kept = ("id", "image_id", "category_id", "bbox", "area")
    assert all(animal[field] == coco["annotations"][0][field] for field in kept)
    assert remapped["images"] == coco["images"]
    assert remapped["categories"][0]["keypoints"] == list(names)
    assert remapped["categories"][0]["skeleton"][0] == [1, 2]  # counted from 1, as COCO does
    assert json.dumps(coco) == before


def test_the_neck_is_the_throat_or_the_midpoint_of_throat_and_withers():
    names, theirs = keypoints.AP10K.names, keypoints.ANIMAL_POSE.names
    neck, throat, withers = names.index("neck"), theirs.index("throat"), theirs.index("withers")

    def necks(labelled):
        coco = twenty_joints(labelled)
        animals = {
            name: keypoints.remap_annotations(coco, keypoints.animal_pose_mapping(name))
            for name in keypoints.ANIMAL_POSE_NECKS
        }
        points = {
            k: np.reshape(v["annotations"][0]["keypoints"], (17, 3)) for k, v in animals.items()
        }
        others = [np.delete(p, neck, axis=0) for p in points.values()]
        np.testing.assert_array_equal(*others)
        return {name: p[neck].tolist() for name, p in points.items()}

    assert necks(range(20)) == {"throat": [17, 117, 2], "midpoint": [17.5, 117.5, 2]}
    # a midpoint needs both ends
    assert necks({throat}) == {"throat": [17, 117, 2], "midpoint": [0, 0, 0]}
    assert necks({withers}) == {"throat": [0, 0, 0], "midpoint": [0, 0, 0]}
    assert keypoints.animal_pose_mapping() == keypoints.animal_pose_mapping("throat")
    with pytest.raises(ValueError, match="unknown neck 'nape': choose from throat, midpoint"):
        keypoints.animal_pose_mapping("nape")


def test_hidden_joints_are_counted_when_they_are_mapped():
    coco = twenty_joints({0, 1, 2})
    coco["annotations"][0]["keypoints"][2] = 1  # COCO's visibility of a hidden joint
    assert keypoints.remap_annotations(coco)["annotations"][0]["num_keypoints"] == 3


def test_an_animal_of_ears_alone_has_no_common_keypoint():
    theirs = keypoints.ANIMAL_POSE.names
    coco = twenty_joints({theirs.index(name) for name in ("left_ear", "right_ear", "withers")})
    animal = keypoints.remap_annotations(coco)["annotations"][0]
    assert animal["num_keypoints"] == 0
    assert not any(animal["keypoints"])


def test_a_mapping_of_another_size_is_refused():
    with pytest.raises(ValueError, match="17 joints"):
        keypoints.remap_annotations(twenty_joints({0}), to=keypoints.ANIMAL_POSE)


def declared(names, **more):
    return {"id": 1, "name": "fox", "keypoints": list(names), **more}


@pytest.mark.parametrize("joints", SETS.values(), ids=SETS)
def test_the_known_lists_of_names_give_the_known_sets(joints):
    assert keypoints.from_category(declared(joints.names)) == joints
    assert keypoints.pairs_of(joints.names) == joints.pairs  # which they would get by their names


@pytest.mark.parametrize(
    ("path", "joints"),
    [
        ("data/ap10k_real/test_ap10k.json", keypoints.AP10K),
        ("data/coco_person/test_coco.json", keypoints.COCO_PERSON),
    ],
)
def test_the_official_files_declare_the_known_sets(path, joints):
    for category in json.loads(shared(path).read_text())["categories"]:
        assert keypoints.from_category(category) == joints


def test_a_set_of_ones_own_has_what_its_category_declares():
    category = declared(
        ["right_ear", "nose", "left_ear"], skeleton=[[2, 1], [2, 3]], sigmas=[0.03, 0.02, 0.03]
    )
    before = json.dumps(category)
    joints = keypoints.from_category(category)
    assert joints == keypoints.KeypointSet(
        names=("right_ear", "nose", "left_ear"),
        pairs=((2, 0),),
        skeleton=((1, 0), (1, 2)),
        upper_body=(),
        sigmas=(0.03, 0.02, 0.03),
    )
    assert [joints.side(i) for i in range(3)] == ["right", "middle", "left"]
    assert json.dumps(category) == before
    assert hash(joints)


def test_sigmas_that_nobody_measured_are_all_alike_and_declared_ones_come_before_known_ones():
    assert keypoints.from_category(declared(["a", "b"])).sigmas == (0.05, 0.05)
    names = keypoints.AP10K.names
    joints = keypoints.from_category(declared(names, sigmas=[0.04] * 17))
    assert joints == dataclasses.replace(keypoints.AP10K, sigmas=(0.04,) * 17)
    # the same names in another order are other joints
    joints = keypoints.from_category(declared(names[::-1]))
    assert joints.sigmas == (0.05,) * 17
    assert joints.upper_body == ()
    assert len(joints.pairs) == 7


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("left_eye", "right_eye"),
        ("eye_left", "eye_right"),
        ("front_left_paw", "front_right_paw"),
        ("l_eye", "r_eye"),
        ("L_F_Paw", "R_F_Paw"),
        ("eye.L", "eye.R"),
        ("left-eye", "right-eye"),
        ("L eye", "R eye"),
        ("leftEye", "rightEye"),
        ("LEye", "REye"),
        ("earLeft", "earRight"),
        ("leftear", "rightear"),
        ("LEFT_EYE", "RIGHT_EYE"),
        ("left", "right"),
        ("left_rib_3", "right_rib_3"),
        ("l_eye", "right_eye"),
        ("ухо_left", "ухо_right"),
    ],
)
def test_sides_are_found_however_they_are_written(left, right):
    assert keypoints.pairs_of(["nose", right, left]) == ((2, 1),)


@pytest.mark.parametrize(
    "names",
    [
        ("leg", "reg"),  # begins with l, and r
        ("bright_spot", "bleft_spot"),
        ("left_eye", "right_ear"),
        ("left_rib_3", "right_rib_4"),
        ("left_right_middle", "right_left_middle"),
        ("tail", "root"),
        ("spine+", "spine-"),  # no sides: that only signs tell them apart is no matter
        ("upper spine+", "upper spine-"),
    ],
)
def test_what_is_no_pair_is_not_paired(names):
    assert keypoints.pairs_of(names) == ()


@pytest.mark.parametrize(
    "coco", [{}, {"categories": []}, {"categories": [{"id": 1, "name": "fox"}]}]
)
def test_joints_that_nobody_declares_are_ap10ks(coco):
    assert keypoints.of_annotations(coco) == keypoints.AP10K


@pytest.mark.parametrize("joints", SETS.values(), ids=SETS)
def test_a_set_survives_being_written_as_a_category(joints):
    category = keypoints.as_category(joints)
    assert keypoints.of_annotations({"categories": [category]}) == joints
    own = dataclasses.replace(joints, names=tuple(f"{name}_" for name in joints.names)[::-1])
    back = keypoints.from_category(keypoints.as_category(own))
    assert (back.names, back.skeleton, back.sigmas) == (own.names, own.skeleton, own.sigmas)


def test_joints_without_their_counterpart_are_found():
    joints = keypoints.from_category(declared(["left_eye", "rigth_eye", "left_ear", "right_ear"]))
    assert keypoints.one_sided(joints) == ["left_eye"]
    assert all(keypoints.one_sided(known) == [] for known in SETS.values())


@pytest.mark.parametrize(
    ("category", "text"),
    [
        ({"name": "fox"}, "declares no keypoints"),
        (declared([]), "declares no keypoints"),
        ({"keypoints": "nose"}, "declares no keypoints"),
        (declared(["nose", 5]), "5 is not a name of a keypoint"),
        (declared(["nose", " "]), "' ' is not a name of a keypoint"),
        (declared(["nose", "ear", "nose"]), "'nose' names more than one keypoint"),
        (declared(["left_eye", "L_eye"]), "'left_eye' and 'L_eye' name the same keypoint"),
        (declared("ab", skeleton=[[0, 1]]), "numbers from 1 to 2"),
        (declared("ab", skeleton=[[1, 3]]), "numbers from 1 to 2"),
        (declared("ab", skeleton=[[1, 2, 1]]), "numbers from 1 to 2"),
        (declared("ab", skeleton=[["1", 2]]), "numbers from 1 to 2"),
        (declared("ab", skeleton={"1": 2}), "numbers from 1 to 2"),
        (declared("ab", sigmas=[0.1]), "the sigmas are not 2 numbers between 0 and 1"),
        (declared("ab", sigmas=[0.1, 1]), "the sigmas are not 2 numbers between 0 and 1"),
        (declared("ab", sigmas=[0.1, 1.5]), "the sigmas are not 2 numbers between 0 and 1"),
        (declared("ab", sigmas=[0.1, 0]), "the sigmas are not 2 numbers between 0 and 1"),
        (declared("ab", sigmas=[0.1, float("nan")]), "the sigmas are not 2 numbers"),
        (declared("ab", sigmas=0.1), "the sigmas are not 2 numbers"),
    ],
)
def test_a_category_that_cannot_be_used_is_refused_with_the_reason(category, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        keypoints.from_category(category)
