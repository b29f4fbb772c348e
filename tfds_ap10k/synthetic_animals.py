"""Draws one articulated mammal: body -> pose in 3D -> rounded limbs on a canvas, with its joints.

Everything here is our own drawing; no photograph is used. A body is a set of tapered capsules in three
dimensions, seen by a parallel camera. A depth buffer decides what hides what, so the far eye is gone,
the far legs stand behind the near ones, and left and right can be told from the picture.

Frames. Body: x forward, y to the animal's left, z up, unit = hip to shoulder, ground at z = 0.
View: x right, y down, depth away from the camera; still body units. Canvas: pixels.
"""

import dataclasses
import functools

import numpy as np

NUM_KEYPOINTS = 17
TEXELS = 128  # coat texture cells per body unit; a tile is 2 body units wide and repeats

Colour = tuple[int, int, int]  # RGB, 0..255


@dataclasses.dataclass(frozen=True)
class Body:
    """The looks of a species; lengths in body units (hip to shoulder = 1), radii for widths."""

    coat: Colour
    belly: Colour
    pattern: str = "plain"
    ink: Colour = (30, 26, 24)  # colour of the pattern
    leg: float = 0.85  # height of the hip when standing
    limb: float = 0.075  # radius of a leg at the elbow
    chest: float = 0.27
    waist: float = 0.25
    rump: float = 0.25
    neck: float = 0.45
    rise: float = 35  # degrees of the neck above the horizontal
    throat: float = 0.14
    skull: float = 0.13
    snout: float = 0.27  # from the middle of the skull to the nose
    muzzle: float = 0.075
    ear: float = 0.13
    ear_width: float = 0.05
    tail: float = 0.6
    tail_width: float = 0.03
    tip: Colour | None = None  # end of the tail
    legs: Colour | None = None  # lower legs
    feet: Colour = (38, 32, 30)
    face: Colour | None = None
    ears: Colour | None = None
    extras: tuple[str, ...] = ()
    grazes: bool = False
    sits: bool = False


# Chosen for shapes and coats that a person names at once, and for the families of the paper's
# generalisation tracks (several Bovidae, Cervidae, Equidae, Canidae and Felidae).
BODIES = {
    "antelope": Body(
        (196, 138, 84), (244, 232, 214), leg=0.95, limb=0.05, chest=0.23, waist=0.2, rump=0.21,
        neck=0.5, rise=52, throat=0.1, skull=0.11, snout=0.25, muzzle=0.055, ear=0.16, tail=0.3,
        tip=(40, 30, 26), extras=("spears",), grazes=True,
    ),
    "cow": Body(
        (238, 232, 224), (238, 226, 214), "patches", (52, 40, 36), leg=0.76, chest=0.31, waist=0.33,
        rump=0.29, neck=0.36, rise=18, throat=0.17, skull=0.15, snout=0.32, muzzle=0.11, ear=0.17,
        tail=0.75, tip=(60, 46, 40), extras=("horns",), grazes=True,
    ),
    "sheep": Body(
        (232, 226, 212), (206, 198, 182), "wool", (178, 168, 150), leg=0.68, limb=0.055, chest=0.33,
        waist=0.36, rump=0.34, neck=0.3, rise=32, throat=0.16, skull=0.13, snout=0.27, muzzle=0.075,
        ear=0.15, tail=0.22, tail_width=0.06, legs=(58, 50, 46), face=(62, 54, 50), ears=(62, 54, 50),
        grazes=True,
    ),
    "fox": Body(
        (214, 104, 42), (246, 238, 226), leg=0.62, limb=0.05, chest=0.2, waist=0.19, rump=0.19,
        neck=0.24, rise=38, throat=0.12, skull=0.14, snout=0.27, muzzle=0.045, ear=0.2, ear_width=0.07,
        tail=0.85, tail_width=0.1, tip=(250, 246, 240), legs=(46, 34, 32), ears=(60, 40, 34), sits=True,
    ),
    "wolf": Body(
        (126, 122, 118), (206, 200, 190), "wool", (82, 78, 76), leg=0.8, limb=0.065, chest=0.24,
        waist=0.21, rump=0.21, neck=0.3, rise=28, throat=0.16, skull=0.15, snout=0.3, muzzle=0.06,
        ear=0.15, ear_width=0.06, tail=0.6, tail_width=0.075, sits=True,
    ),
    "deer": Body(
        (156, 98, 58), (222, 200, 174), leg=0.98, limb=0.05, chest=0.24, waist=0.22, rump=0.23,
        neck=0.55, rise=55, throat=0.11, skull=0.115, snout=0.27, muzzle=0.055, ear=0.18, ear_width=0.055,
        tail=0.18, tail_width=0.05, tip=(246, 240, 230), extras=("antlers",), grazes=True,
    ),
    "elephant": Body(
        (134, 130, 130), (118, 112, 112), leg=0.9, limb=0.14, chest=0.44, waist=0.46, rump=0.42,
        neck=0.26, rise=22, throat=0.27, skull=0.27, snout=0.3, muzzle=0.14, ear=0.5, ear_width=0.27,
        tail=0.6, feet=(190, 182, 170), extras=("trunk", "tusks"),
    ),
    "horse": Body(
        (118, 66, 38), (126, 78, 50), leg=0.98, limb=0.06, chest=0.27, waist=0.26, rump=0.27, neck=0.62,
        rise=46, throat=0.14, skull=0.13, snout=0.36, muzzle=0.08, ear=0.13, tail=0.85, tail_width=0.07,
        tip=(28, 22, 22), ink=(28, 22, 22), legs=(66, 40, 30), extras=("crest",), grazes=True,
    ),
    "zebra": Body(
        (242, 240, 234), (246, 244, 240), "stripes", (26, 24, 26), leg=0.86, limb=0.062, chest=0.28,
        waist=0.28, rump=0.28, neck=0.5, rise=42, throat=0.15, skull=0.13, snout=0.33, muzzle=0.08,
        ear=0.15, ear_width=0.055, tail=0.6, tip=(26, 24, 26), extras=("crest",), grazes=True,
    ),
    "leopard": Body(
        (222, 172, 98), (246, 236, 216), "rosettes", (44, 30, 22), leg=0.66, limb=0.075, chest=0.22,
        waist=0.21, rump=0.21, neck=0.24, rise=22, throat=0.15, skull=0.16, snout=0.2, muzzle=0.085,
        ear=0.09, ear_width=0.06, tail=1.0, tail_width=0.045, feet=(214, 170, 110), sits=True,
    ),
    "lion": Body(
        (206, 158, 94), (234, 208, 164), leg=0.74, limb=0.085, chest=0.26, waist=0.22, rump=0.22,
        neck=0.28, rise=24, throat=0.17, skull=0.17, snout=0.24, muzzle=0.09, ear=0.09, ear_width=0.06,
        tail=0.9, tip=(82, 48, 26), ink=(104, 60, 30), feet=(196, 150, 92), extras=("mane",), sits=True,
    ),
    "tiger": Body(
        (228, 132, 42), (250, 242, 230), "slashes", (28, 22, 22), leg=0.7, limb=0.09, chest=0.25,
        waist=0.24, rump=0.23, neck=0.26, rise=20, throat=0.18, skull=0.18, snout=0.23, muzzle=0.095,
        ear=0.09, ear_width=0.065, tail=0.9, tail_width=0.05, feet=(222, 140, 60), sits=True,
    ),
    "giraffe": Body(
        (170, 98, 44), (226, 196, 148), "mosaic", (240, 220, 178), leg=1.45, limb=0.07, chest=0.29,
        waist=0.26, rump=0.25, neck=1.35, rise=62, throat=0.13, skull=0.12, snout=0.3, muzzle=0.06,
        ear=0.14, tail=0.7, tip=(40, 30, 26), legs=(232, 206, 164), extras=("ossicones",),
    ),
    "pig": Body(
        (236, 168, 160), (228, 152, 146), leg=0.5, limb=0.075, chest=0.3, waist=0.32, rump=0.3, neck=0.2,
        rise=8, throat=0.22, skull=0.19, snout=0.32, muzzle=0.09, ear=0.16, ear_width=0.055, tail=0.22,
        feet=(120, 84, 80), grazes=True,
    ),
    "rhino": Body(
        (126, 118, 110), (104, 96, 90), leg=0.66, limb=0.12, chest=0.37, waist=0.39, rump=0.35, neck=0.3,
        rise=2, throat=0.24, skull=0.19, snout=0.42, muzzle=0.12, ear=0.14, ear_width=0.06, tail=0.4,
        feet=(84, 78, 74), extras=("nosehorn",), grazes=True,
    ),
    "panda": Body(
        (242, 240, 234), (232, 230, 224), leg=0.58, limb=0.13, chest=0.36, waist=0.36, rump=0.33,
        neck=0.22, rise=26, throat=0.24, skull=0.25, snout=0.28, muzzle=0.11, ear=0.12, ear_width=0.09,
        tail=0.12, tail_width=0.06, legs=(28, 26, 28), ears=(28, 26, 28), feet=(28, 26, 28),
        ink=(28, 26, 28), extras=("goggles", "yoke"), sits=True,
    ),
}  # fmt: skip


@dataclasses.dataclass
class Capsule:
    """A rounded stick from a to b (body frame), radii at both ends, and how it is painted."""

    a: np.ndarray
    b: np.ndarray
    ra: float
    rb: float
    colour: Colour
    belly: Colour | None = None  # colour of the underside; None paints the whole in one colour
    coated: bool = False  # carries the coat's pattern
    start: float = 0.0  # where along the coat's texture this part begins, body units
    bulge: float = 1.0  # 0 is flat: an ear does not swallow the eye beside it
    limb: float = 0.0  # signed side of a leg, +1 left: the far ones are darkened


@dataclasses.dataclass
class Animal:
    """A posed animal in the body frame: what to paint and where its joints are."""

    capsules: list[Capsule]
    joints: np.ndarray  # (17, 3)
    reach: np.ndarray  # (17,) a joint this far behind the nearest surface still counts as seen
    pattern: str
    ink: Colour


@dataclasses.dataclass
class Canvas:
    """A picture being painted: colours, nearest depth of the current animal, and who owns a pixel."""

    rgb: np.ndarray  # (H, W, 3) float32, 0..255
    depth: np.ndarray  # (H, W) float32
    owner: np.ndarray  # (H, W) int32: 0 background, 1.. animals, -1 what stands in front of them


def vary(body: Body, rng: np.random.Generator) -> Body:
    """An individual of the species: proportions within about 8 %, coat a little lighter or darker."""
    lengths = ("leg", "limb", "chest", "waist", "rump", "neck", "skull", "snout", "ear", "tail")
    sizes = {name: getattr(body, name) * rng.uniform(0.92, 1.08) for name in lengths}
    tint = rng.uniform(0.85, 1.08) * rng.uniform(0.96, 1.04, 3)
    colours = {
        name: tuple(np.clip(np.array(getattr(body, name)) * tint, 0, 255).tolist())
        for name in ("coat", "belly")
    }
    return dataclasses.replace(body, **sizes, **colours)


def middle_joint(root: np.ndarray, end: np.ndarray, upper: float, lower: float, bend: int):
    """Knee or elbow of a two-bone leg in the sagittal plane, and the end pulled within reach.

    root and end are (x, z); bend +1 puts the joint ahead of the line between them, -1 behind.
    """
    span = end - root
    length = np.hypot(*span)
    reach = np.clip(length, abs(upper - lower) + 1e-3, (upper + lower) * 0.998)
    along = span / max(length, 1e-6)
    foot = (reach**2 + upper**2 - lower**2) / (2 * reach)
    ahead = np.array([-along[1], along[0]])  # a hanging leg's normal points forward
    return root + along * foot + bend * ahead * np.sqrt(
        max(upper**2 - foot**2, 0.0)
    ), root + along * reach


def pose(body: Body, rng: np.random.Generator) -> Animal:
    """A random plausible posture: walking, standing, crouching, lying or sitting; head up or down."""
    postures = ["walk", "stand", "crouch", "lie", "sit" if body.sits else "walk"]
    posture = postures[rng.choice(5, p=[0.4, 0.28, 0.08, 0.1, 0.14])]
    hip_z = {"crouch": 0.78 * body.leg, "lie": body.rump * 0.95, "sit": 0.42 * body.leg}.get(
        posture, body.leg * 0.98
    )
    shoulder_z = {"lie": body.chest * 1.0, "crouch": hip_z * rng.uniform(0.85, 1.0)}.get(
        posture, body.leg * rng.uniform(0.97, 1.03)
    )
    tilt = np.arcsin(np.clip(shoulder_z - hip_z, -0.8, 0.8))
    ahead, over = np.array([np.cos(tilt), np.sin(tilt)]), np.array([-np.sin(tilt), np.cos(tilt)])

    def trunk(along: float, above: float, side: float = 0.0) -> np.ndarray:
        x, z = along * ahead + above * over + np.array([0.0, hip_z])
        return np.array([x, side, z])

    joints, reach = np.zeros((NUM_KEYPOINTS, 3)), np.zeros(NUM_KEYPOINTS)
    coat = dict(colour=body.coat, belly=body.belly, coated=True)
    parts = [
        Capsule(trunk(0, 0), trunk(0.5, -0.03), body.rump, body.waist, **coat),
        Capsule(trunk(0.5, -0.03), trunk(1, 0), body.waist, body.chest, start=0.5, **coat),
    ]
    if "yoke" in body.extras:  # the panda's black band over the shoulders
        parts.append(
            Capsule(
                trunk(0.98, -0.1), trunk(1.0, 0.1), body.chest * 1.03, body.chest * 1.0, body.ink
            )
        )
    phase = rng.uniform(0, 2 * np.pi)
    stride = body.leg * rng.uniform(0.12, 0.3) if posture == "walk" else 0.03
    for side, front, first in ((1, True, 5), (-1, True, 8), (1, False, 11), (-1, False, 14)):
        swing = phase + np.pi * ((side > 0) == front) + rng.normal(0, 0.25)
        parts += leg(body, rng, posture, trunk, side, front, first, stride, swing, joints, reach)
    parts += head_and_neck(body, rng, posture, trunk, joints, reach)
    parts += tail(body, rng, posture, trunk, joints, reach)
    return Animal(parts, joints, reach, body.pattern, body.ink)


def leg(
    body, rng, posture, trunk, side, front, first, stride, swing, joints, reach
) -> list[Capsule]:
    """One leg on the ground; writes its three joints from index `first` on."""
    width = 0.66 * (body.chest if front else body.rump)
    root = trunk(0.98, -0.38 * body.chest, side * width) if front else (
        trunk(0.02, -0.12 * body.rump, side * width)
    )  # fmt: skip
    total = body.leg - (0.38 * body.chest if front else 0.12 * body.rump)
    lift = stride * max(0.0, np.cos(swing)) * 0.5
    foot = np.array(
        [root[0] + stride * np.sin(swing) + rng.normal(0, 0.025), 0.6 * body.limb + lift]
    )
    folded = posture == "lie" or (posture == "sit" and not front)
    if posture == "lie" and front:
        foot[0] += rng.uniform(0.55, 0.8) * total
    elif folded:
        foot[0] += rng.uniform(0.35, 0.5) * total
    if front:
        upper, lower = 0.5 * total, 0.54 * total
        middle, foot = middle_joint(root[[0, 2]], foot, upper, lower, -1)
        chain = [middle, foot]
    else:
        shank = 0.3 * total  # from hock to paw: the bend that makes a hind leg a hind leg
        angle = np.deg2rad(rng.uniform(8, 18) if folded else rng.uniform(68, 82))
        hock = foot + shank * np.array([-np.cos(angle), np.sin(angle)])
        middle, reached = middle_joint(root[[0, 2]], hock, 0.42 * total, 0.42 * total, 1)
        chain = [middle, reached, foot + reached - hock]
    splay = 1.0
    if folded and not front:  # a folded hind leg lies beside the body, it does not stand above it
        middle[1], splay = 0.6 * middle[1], 1.3
    ground = 0.6 * body.limb
    points = [root] + [np.array([x, side * width * 0.92 * splay, max(z, ground)]) for x, z in chain]
    toe = points[-1] + np.array([body.limb * 0.9, 0, -0.1 * body.limb])
    joints[first : first + 3] = points[0], points[1], points[-1]
    reach[first : first + 3] = body.limb * (2.2 if front else 2.6), body.limb * 1.6, body.limb * 1.5

    lower_colour = body.legs or body.coat
    dark = "yoke" in body.extras  # the panda's legs are black to the top
    upper_coat = dict(colour=lower_colour if dark else body.coat, coated=not dark, limb=side)
    lower_coat = dict(colour=lower_colour, coated=body.legs is None, limb=side)
    top = body.limb * (1.7 if front else 2.2)
    radii = (
        [body.limb, body.limb * 0.62]
        if front
        else [body.limb * 1.05, body.limb * 0.66, body.limb * 0.58]
    )
    parts = [Capsule(points[0], points[1], top, radii[0], **upper_coat)]
    for i in range(1, len(points) - 1):
        parts.append(
            Capsule(
                points[i], points[i + 1], radii[i - 1] * 0.95, radii[i], start=0.5, **lower_coat
            )
        )
    parts.append(Capsule(points[-1], toe, body.limb * 0.75, body.limb * 0.7, body.feet, limb=side))
    return parts


def head_and_neck(body, rng, posture, trunk, joints, reach) -> list[Capsule]:
    """Neck, head, ears and what the species wears on them; writes eyes, nose and neck."""
    base = trunk(1.0 + 0.55 * body.chest, 0.42 * body.chest)
    grazing = body.grazes and posture in ("walk", "stand") and rng.random() < 0.28
    if grazing:
        drop = (base[2] - 1.6 * body.skull) / body.neck
        rise, pitch = -np.arcsin(np.clip(drop, 0.0, 0.88)), np.deg2rad(rng.uniform(-62, -48))
    else:
        rise, pitch = np.deg2rad(body.rise + rng.uniform(-18, 12)), np.deg2rad(rng.uniform(-34, -6))
    turn = np.deg2rad(rng.normal(0, 16))  # the head looks left or right of where the trunk points
    lean = turn * 0.5
    neck_axis = np.array([np.cos(rise) * np.cos(lean), np.cos(rise) * np.sin(lean), np.sin(rise)])
    skull = base + neck_axis * body.neck
    d = np.array([np.cos(pitch) * np.cos(turn), np.cos(pitch) * np.sin(turn), np.sin(pitch)])
    left = np.array([-np.sin(turn), np.cos(turn), 0.0])
    up = np.cross(d, left)

    def at(forward: float, side: float, above: float) -> np.ndarray:  # in skull radii
        return skull + body.skull * (forward * d + side * left + above * up)

    length = body.snout / body.skull
    nose = at(length, 0, -0.2)
    face = body.face or body.coat
    coated = body.face is None
    parts = [
        Capsule(trunk(1.0, 0.1 * body.chest), base, body.chest * 0.8, body.throat * 1.15, body.coat,
                body.belly, True, 1.0),
        Capsule(base, skull, body.throat * 1.15, body.throat * 0.8, body.coat, body.belly, True, 1.2),
        Capsule(skull, at(0.25, 0, 0), body.skull, body.skull * 0.95, face, coated=coated),
        Capsule(at(0.5, 0, -0.1), nose, body.skull * 0.78, body.muzzle, face, body.belly if coated else None),
    ]  # fmt: skip
    if "trunk" in body.extras:
        points = [nose]
        curl = rng.uniform(-0.12, 0.3)
        for i, width in enumerate((0.13, 0.11, 0.09)):
            drop = max(-0.27, 0.1 - points[-1][2])
            points.append(points[-1] + d * (0.08 + curl * i * 0.4) + np.array([0, 0, drop]))
            parts.append(Capsule(points[-2], points[-1], width, width - 0.02, body.coat))
        nose = points[-1]
    nose_radius = max(0.6 * body.muzzle, 0.035)
    tip = nose + d * (body.muzzle * 0.75 if "trunk" not in body.extras else 0.03)
    parts.append(Capsule(tip, tip, nose_radius, nose_radius, (24, 18, 20)))

    eye = max(0.17 * body.skull, 0.026)
    for side, joint in ((1, 0), (-1, 1)):
        spot = at(0.5, side * 0.74, 0.42)
        ring = body.ink if "goggles" in body.extras else (250, 244, 226)
        parts.append(Capsule(spot, spot, eye * 1.75, eye * 1.75, ring, bulge=0.8))
        dot = spot + left * side * eye * 0.9 + d * eye * 0.45
        pupil = (235, 235, 235) if "goggles" in body.extras else (12, 10, 12)
        parts.append(Capsule(dot, dot, eye, eye, pupil))
        joints[joint], reach[joint] = dot, eye * 1.2
        parts += ear(body, at, side)
    joints[2], reach[2] = tip, nose_radius * 1.6
    joints[3], reach[3] = base, max(body.throat * 1.7, body.chest * 1.15)
    return parts + ornaments(body, at, base, skull, neck_axis, nose)


def ear(body: Body, at, side: int) -> list[Capsule]:
    """One ear; `at` places points in the head's frame, in skull radii."""
    k = body.ear / body.skull
    colour = body.ears or body.coat
    if "trunk" in body.extras:  # an elephant's: a broad flap hanging beside and behind the head
        return [Capsule(at(-0.45, side * 0.95, 0.25), at(-1.0, side * 1.2, 0.25 - 0.5 * k),
                        body.ear_width, body.ear_width * 0.7, body.belly, bulge=0.25)]  # fmt: skip
    root, tip = at(-0.3, side * 0.62, 0.75), at(-0.4, side * (0.75 + 0.4 * k), 0.75 + 0.85 * k)
    return [Capsule(root, tip, body.ear_width, body.ear_width * 0.45, colour, bulge=0.5)]


def ornaments(body: Body, at, base, skull, neck_axis, nose) -> list[Capsule]:
    """Horns, antlers, tusks, manes and crests."""
    bone, parts = (226, 214, 188), []

    def stick(points, ra, rb, colour=bone):
        radii = np.linspace(ra, rb, len(points))
        for a, b, r, s in zip(points, points[1:], radii, radii[1:], strict=False):
            parts.append(Capsule(a, b, r, s, colour))

    for side in (1, -1):
        if "horns" in body.extras:
            stick(
                [at(-0.1, side * 0.55, 0.9), at(0, side * 1.35, 1.25), at(0.2, side * 1.5, 1.85)],
                0.04,
                0.015,
            )
        if "spears" in body.extras:
            stick([at(0.0, side * 0.35, 0.9), at(-0.9, side * 0.7, 2.6), at(-1.1, side * 0.95, 4.2)], 0.03, 0.01,
                  (62, 50, 44))  # fmt: skip
        if "antlers" in body.extras:
            fork = at(-0.8, side * 1.5, 2.6)
            stick([at(-0.1, side * 0.4, 0.9), fork, at(0.2, side * 1.9, 4.2)], 0.028, 0.014)
            stick([fork, at(-1.9, side * 2.1, 3.8)], 0.022, 0.012)
            stick([at(-0.4, side * 0.9, 1.7), at(0.8, side * 1.0, 2.6)], 0.02, 0.012)
        if "ossicones" in body.extras:
            stick(
                [at(-0.1, side * 0.35, 0.8), at(-0.25, side * 0.4, 1.75)], 0.03, 0.035, (70, 46, 32)
            )
        if "tusks" in body.extras:
            stick([at(0.85, side * 0.45, -0.5), at(1.5, side * 0.55, -1.1), at(2.0, side * 0.5, -1.0)], 0.05,
                  0.02, (246, 240, 222))  # fmt: skip
    if "nosehorn" in body.extras:
        stick([at(1.75, 0, 0.3), at(2.1, 0, 1.5)], 0.07, 0.012, (168, 158, 142))
        stick([at(1.1, 0, 0.5), at(1.25, 0, 1.15)], 0.06, 0.015, (168, 158, 142))
    if "mane" in body.extras:
        parts.append(Capsule(at(-0.75, 0, -0.25), base - np.array([0, 0, 0.06]), body.skull * 1.6,
                             body.skull * 1.45, body.ink, bulge=0.85))  # fmt: skip
    if "crest" in body.extras:
        top = np.cross(neck_axis, np.array([0.0, 1.0, 0.0]))
        stick([base + top * -body.throat * 1.1, skull + top * -body.throat * 0.85, at(0.1, 0, 1.05)], 0.045,
              0.04, body.ink)  # fmt: skip
    return parts


def tail(body: Body, rng, posture, trunk, joints, reach) -> list[Capsule]:
    """The tail, hanging or lifted; writes its root."""
    root = trunk(-0.86 * body.rump, 0.46 * body.rump)
    hang = np.deg2rad(rng.uniform(-80, -25) if body.tail > 0.35 else rng.uniform(-60, 20))
    sway, points, widths = rng.normal(0, 0.25), [root], [1.0, 1.25, 1.15, 0.8]
    for i in range(3):
        step = body.tail / 3 * np.array([-np.cos(hang), sway * 0.5, np.sin(hang)])
        points.append(np.maximum(points[-1] + step, [-9, -9, body.tail_width]))
        hang += np.deg2rad(14 * (i + 1)) * (posture != "lie")
    joints[4], reach[4] = root, body.rump * 0.75
    parts = []
    for i in range(3):
        last = i == 2 and body.tip is not None
        colour = body.tip if last else body.coat
        bushy = (
            body.tail_width if body.tail_width > 0.05 else body.tail_width * (1.8 if last else 1.0)
        )
        parts.append(
            Capsule(points[i], points[i + 1], bushy * widths[i], bushy * widths[i + 1], colour,
                    coated=not last, start=i * body.tail / 3)
        )  # fmt: skip
    return parts


def view(points: np.ndarray, yaw: float, pitch: float) -> np.ndarray:
    """(..., 3) body points -> (..., 3) x right, y down, depth; yaw 0 faces right, pi/2 away from us."""
    x, y, z = np.moveaxis(np.asarray(points), -1, 0)
    right = x * np.cos(yaw) - y * np.sin(yaw)
    away = x * np.sin(yaw) + y * np.cos(yaw)
    down = -(z * np.cos(pitch) + away * np.sin(pitch))
    return np.stack([right, down, away * np.cos(pitch) - z * np.sin(pitch)], axis=-1)


def extent(animal: Animal, yaw: float, pitch: float) -> np.ndarray:
    """(x0, y0, x1, y1) of the animal in the view, body units."""
    ends = np.array([[c.a, c.b] for c in animal.capsules])
    radii = np.array([[c.ra, c.rb] for c in animal.capsules])[..., None]
    seen = view(ends, yaw, pitch)[..., :2]
    return np.concatenate([(seen - radii).min((0, 1)), (seen + radii).max((0, 1))])


def paint_animal(canvas, animal, index, yaw, pitch, scale, origin, light, rng) -> np.ndarray:
    """Paints the animal as owner `index`; returns its joints (17, 3) as x, y in pixels and seen 0/1.

    origin (x, y) is where the body frame's origin falls, scale is pixels per body unit. "Seen" is
    with respect to the animal's own body only; the picture's frame and other things are not asked.
    """
    canvas.depth[:] = np.inf
    ends = view(np.array([[c.a, c.b] for c in animal.capsules]), yaw, pitch) * scale
    ends[..., :2] += origin
    offset = rng.uniform(0, 2, 2)
    lateral = np.cos(yaw)  # how far the animal's left points away from us
    for i in np.argsort(-ends[..., 2].mean(1)):
        c = animal.capsules[i]
        tone = 1.0 - 0.42 * np.clip(c.limb * lateral, 0, 1) ** 0.7
        paint_capsule(canvas, c, ends[i], scale, tone, animal, offset, light, index)

    joints = view(animal.joints, yaw, pitch) * scale
    joints[:, :2] += origin
    height, width = canvas.depth.shape
    x, y = np.round(joints[:, :2]).astype(int).T
    inside = (x >= 0) & (y >= 0) & (x < width) & (y < height)
    surface = canvas.depth[y.clip(0, height - 1), x.clip(0, width - 1)]
    seen = inside & (surface >= joints[:, 2] - animal.reach * scale - 1.0)
    return np.column_stack([joints[:, :2], seen])


def paint_capsule(canvas, c, ends, scale, tone, animal, offset, light, index) -> None:
    """One capsule, anti-aliased and shaded, where it is nearer than what the animal shows there."""
    (ax, ay, az), (bx, by, bz) = ends
    ra, rb = max(c.ra * scale, 1.1), max(c.rb * scale, 1.1)
    height, width = canvas.depth.shape
    x0, x1 = max(int(min(ax - ra, bx - rb)) - 1, 0), min(int(max(ax + ra, bx + rb)) + 3, width)
    y0, y1 = max(int(min(ay - ra, by - rb)) - 1, 0), min(int(max(ay + ra, by + rb)) + 3, height)
    if x0 >= x1 or y0 >= y1:
        return
    px = np.arange(x0, x1, dtype=np.float32)[None] - np.float32(ax)
    py = np.arange(y0, y1, dtype=np.float32)[:, None] - np.float32(ay)
    dx, dy = np.float32(bx - ax), np.float32(by - ay)
    t = np.clip((px * dx + py * dy) / max(dx * dx + dy * dy, np.float32(1e-6)), 0, 1)
    radius = ra + t * np.float32(rb - ra)
    nx, ny = (px - t * dx) / radius, (py - t * dy) / radius
    flat = nx * nx + ny * ny
    nz = np.sqrt(np.maximum(1 - flat, 0))
    alpha = np.clip((1 - np.sqrt(flat)) * radius + 0.5, 0, 1)
    depth = az + t * np.float32(bz - az) - c.bulge * radius * nz
    region = np.s_[y0:y1, x0:x1]
    nearer = (alpha > 0) & (depth < canvas.depth[region])
    rows, cols = np.nonzero(nearer)
    if not rows.size:
        return
    nx, ny, nz, alpha, t = (v[rows, cols] for v in (nx, ny, nz, alpha, t))
    colour = np.empty((rows.size, 3), np.float32)
    colour[:] = c.colour
    if c.coated and animal.pattern != "plain":
        # Along the part to beyond its rounded ends, around it by angle; foreshortened parts keep
        # their texture's density, so that a zebra seen from the front is still a zebra.
        seen = np.hypot(dx, dy)
        ux, uy = (dx / seen, dy / seen) if seen > 0.5 else (1.0, 0.0)
        squeeze = np.clip(seen / (scale * np.linalg.norm(c.b - c.a) + 1e-6), 0.35, 1.0)
        along = ((cols + x0 - ax) * ux + (rows + y0 - ay) * uy) / (scale * squeeze)
        around = np.arcsin(np.clip(ny * ux - nx * uy, -1, 1)) * max(c.ra, c.rb)
        u = ((offset[0] + c.start + along) * TEXELS).astype(np.int32)
        v = ((offset[1] + around) * TEXELS).astype(np.int32)
        ink = coat_tile(animal.pattern)[u % (2 * TEXELS), v % (2 * TEXELS)][:, None]
        colour += ink * (np.array(animal.ink, np.float32) - colour)
    if c.belly is not None:
        under = np.clip((ny - 0.35) * 2.5, 0, 1)[:, None] * 0.8
        colour += under * (np.array(c.belly, np.float32) - colour)
    shade = 0.5 + 0.6 * np.maximum(nx * light[0] + ny * light[1] + nz * light[2], 0)
    colour *= (shade * tone)[:, None]
    rows, cols = rows + y0, cols + x0
    alpha = alpha[:, None]
    canvas.rgb[rows, cols] += alpha * (colour - canvas.rgb[rows, cols])
    solid = alpha[:, 0] > 0.5
    rows, cols = rows[solid], cols[solid]
    canvas.depth[rows, cols] = depth[rows - y0, cols - x0]
    canvas.owner[rows, cols] = index


@functools.cache
def coat_tile(pattern: str) -> np.ndarray:
    """(256, 256) share of ink, 0..1, over 2 x 2 body units (along, across); repeats at the edges."""
    n = 2 * TEXELS
    along, across = np.meshgrid(*2 * [np.arange(n, dtype=np.float32) / n], indexing="ij")
    turn = 2 * np.pi
    wobble = np.sin(turn * (2 * across + along)) + 0.6 * np.sin(turn * (5 * across - 2 * along))
    if pattern == "stripes":
        wave = np.sin(turn * 17 * along + 0.9 * wobble)
        return np.clip(0.5 + 2.5 * wave, 0, 1)
    if pattern == "slashes":
        wave = np.sin(turn * 13 * along + 1.3 * wobble) + 0.45 * np.sin(
            turn * (4 * across + 3 * along)
        )
        return np.clip(2.5 * (wave - 0.55), 0, 1)
    cells = {"rosettes": 15, "mosaic": 9, "patches": 4, "wool": 22}[pattern]
    rng = np.random.default_rng(10)
    grid = np.stack(np.meshgrid(*2 * [np.arange(cells)], indexing="ij"), -1).reshape(-1, 2)
    seeds = (grid + rng.uniform(0.15, 0.85, grid.shape)) / cells
    near = np.full((2, n, n), 9.0, np.float32)
    which = np.zeros((n, n), np.int32)
    for i, (u, v) in enumerate(seeds):
        du, dv = np.abs(along - u), np.abs(across - v)
        d = np.hypot(np.minimum(du, 1 - du), np.minimum(dv, 1 - dv)).astype(np.float32) * cells
        which[d < near[0]] = i
        near[1] = np.minimum(near[1], np.maximum(near[0], d))
        near[0] = np.minimum(near[0], d)
    if pattern == "rosettes":
        return np.clip(1 - np.abs(near[0] - 0.3) * 6, 0, 1)
    if pattern == "mosaic":
        return np.clip(1 - (near[1] - near[0] - 0.1) * 8, 0, 1)
    if pattern == "patches":
        return (rng.random(len(seeds)) < 0.45)[which].astype(np.float32)
    return np.clip(near[0] - 0.25, 0, 1).astype(np.float32)  # wool: soft curls
