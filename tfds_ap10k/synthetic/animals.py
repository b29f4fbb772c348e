"""Bodies of sixteen species and the postures they take: a posed animal in three dimensions.

Our own constructions from numbers; no photograph is used. A body is a set of tapered capsules, a
posture comes from reaching with two-bone legs for footholds on the ground.

Body frame: x forward, y to the animal's left, z up, unit = hip to shoulder, ground at z = 0.
"""

import dataclasses
import itertools

import numpy as np

NUM_KEYPOINTS = 17

Marks = dict[int, tuple[np.ndarray, float]]  # joint -> its point, and Animal.reach
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
        ear=0.15, tail=0.22, tail_width=0.06, legs=(58, 50, 46), face=(62, 54, 50),
        ears=(62, 54, 50), grazes=True,
    ),
    "fox": Body(
        (214, 104, 42), (246, 238, 226), leg=0.62, limb=0.05, chest=0.2, waist=0.19, rump=0.19,
        neck=0.24, rise=38, throat=0.12, skull=0.14, snout=0.27, muzzle=0.045, ear=0.2,
        ear_width=0.07, tail=0.85, tail_width=0.1, tip=(250, 246, 240), legs=(46, 34, 32),
        ears=(60, 40, 34), sits=True,
    ),
    "wolf": Body(
        (126, 122, 118), (206, 200, 190), "plain", (82, 78, 76), leg=0.8, limb=0.065, chest=0.24,
        waist=0.21, rump=0.21, neck=0.3, rise=28, throat=0.16, skull=0.15, snout=0.3, muzzle=0.06,
        ear=0.15, ear_width=0.06, tail=0.6, tail_width=0.075, sits=True,
    ),
    "deer": Body(
        (156, 98, 58), (222, 200, 174), leg=0.98, limb=0.05, chest=0.24, waist=0.22, rump=0.23,
        neck=0.55, rise=55, throat=0.11, skull=0.115, snout=0.27, muzzle=0.055, ear=0.18,
        ear_width=0.055, tail=0.18, tail_width=0.05, tip=(246, 240, 230), extras=("antlers",),
        grazes=True,
    ),
    "elephant": Body(
        (134, 130, 130), (118, 112, 112), leg=0.9, limb=0.14, chest=0.44, waist=0.46, rump=0.42,
        neck=0.26, rise=22, throat=0.27, skull=0.27, snout=0.3, muzzle=0.14, ear=0.5,
        ear_width=0.27, tail=0.6, feet=(190, 182, 170), extras=("trunk", "tusks"),
    ),
    "horse": Body(
        (118, 66, 38), (126, 78, 50), leg=0.98, limb=0.06, chest=0.27, waist=0.26, rump=0.27,
        neck=0.62, rise=46, throat=0.14, skull=0.13, snout=0.36, muzzle=0.08, ear=0.13, tail=0.85,
        tail_width=0.07, tip=(28, 22, 22), ink=(28, 22, 22), legs=(66, 40, 30), extras=("crest",),
        grazes=True,
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
        neck=0.28, rise=24, throat=0.17, skull=0.17, snout=0.24, muzzle=0.09, ear=0.09,
        ear_width=0.06, tail=0.9, tip=(82, 48, 26), ink=(104, 60, 30), feet=(196, 150, 92),
        extras=("mane",), sits=True,
    ),
    "tiger": Body(
        (228, 132, 42), (250, 242, 230), "slashes", (28, 22, 22), leg=0.7, limb=0.09, chest=0.25,
        waist=0.24, rump=0.23, neck=0.26, rise=20, throat=0.18, skull=0.18, snout=0.23,
        muzzle=0.095, ear=0.09, ear_width=0.065, tail=0.9, tail_width=0.05, feet=(222, 140, 60),
        sits=True,
    ),
    "giraffe": Body(
        (170, 98, 44), (226, 196, 148), "mosaic", (240, 220, 178), leg=1.45, limb=0.07, chest=0.29,
        waist=0.26, rump=0.25, neck=1.35, rise=62, throat=0.13, skull=0.12, snout=0.3, muzzle=0.06,
        ear=0.14, tail=0.7, tip=(40, 30, 26), legs=(232, 206, 164), extras=("ossicones",),
    ),
    "pig": Body(
        (236, 168, 160), (228, 152, 146), leg=0.5, limb=0.075, chest=0.3, waist=0.32, rump=0.3,
        neck=0.2, rise=8, throat=0.18, skull=0.19, snout=0.32, muzzle=0.09, ear=0.16,
        ear_width=0.055, tail=0.22, feet=(120, 84, 80), grazes=True,
    ),
    "rhino": Body(
        (126, 118, 110), (104, 96, 90), leg=0.66, limb=0.12, chest=0.37, waist=0.39, rump=0.35,
        neck=0.3, rise=2, throat=0.24, skull=0.19, snout=0.42, muzzle=0.12, ear=0.14,
        ear_width=0.06, tail=0.4, feet=(84, 78, 74), extras=("nosehorn",), grazes=True,
    ),
    "panda": Body(
        (242, 240, 234), (232, 230, 224), leg=0.58, limb=0.13, chest=0.36, waist=0.36, rump=0.33,
        neck=0.22, rise=26, throat=0.24, skull=0.25, snout=0.28, muzzle=0.11, ear=0.12,
        ear_width=0.09, tail=0.12, tail_width=0.06, legs=(28, 26, 28), ears=(28, 26, 28),
        feet=(28, 26, 28), ink=(28, 26, 28), extras=("goggles", "yoke"), sits=True,
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


def vary(body: Body, rng: np.random.Generator) -> Body:
    """An individual of the species: proportions within 8 %, coat a little off."""
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
    aside = np.sqrt(max(upper**2 - foot**2, 0.0))
    return root + along * foot + bend * ahead * aside, root + along * reach


def pose(body: Body, rng: np.random.Generator) -> Animal:
    """A random posture: walking, standing, crouching, lying or sitting; head up or down."""
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
    marks = {}
    for side, front, first in ((1, True, 5), (-1, True, 8), (1, False, 11), (-1, False, 14)):
        swing = phase + np.pi * ((side > 0) == front) + rng.normal(0, 0.25)
        step = stride * np.array([np.sin(swing), max(0.0, 0.5 * np.cos(swing))])
        more, found = leg(body, rng, posture, trunk, side, front, step)
        parts += more
        marks |= {first + i: mark for i, mark in found.items()}
    for draw in (head_and_neck, tail):
        more, found = draw(body, rng, posture, trunk)
        parts += more
        marks |= found
    joints = np.array([marks[i][0] for i in range(NUM_KEYPOINTS)])
    reach = np.array([marks[i][1] for i in range(NUM_KEYPOINTS)])
    return Animal(parts, joints, reach, body.pattern, body.ink)


def leg(body, rng, posture, trunk, side, front, step) -> tuple[list[Capsule], Marks]:
    """One leg, its foot `step` (ahead, up) from under its root; marks 0, 1, 2 downwards."""
    width = 0.66 * (body.chest if front else body.rump)
    below = 0.38 * body.chest if front else 0.12 * body.rump
    root = trunk(0.98 if front else 0.02, -below, side * width)
    ground = 0.6 * body.limb  # height of a foot's middle
    total = body.leg - below - ground
    foot = np.array([root[0] + step[0] + rng.normal(0, 0.025), ground + step[1]])
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
    aside = side * width * 0.92 * splay
    points = [root] + [np.array([x, aside, max(z, ground)]) for x, z in chain]
    toe = points[-1] + np.array([body.limb * 0.9, 0, -0.1 * body.limb])
    marks = {
        0: (points[0], body.limb * (2.2 if front else 2.6)),
        1: (points[1], body.limb * 1.6),
        2: (points[-1], body.limb * 1.5),
    }
    lower_colour = body.legs or body.coat
    dark = "yoke" in body.extras  # the panda's legs are black to the top
    upper_coat = dict(colour=lower_colour if dark else body.coat, coated=not dark, limb=side)
    lower_coat = dict(colour=lower_colour, coated=body.legs is None, limb=side)
    top = body.limb * (1.7 if front else 2.2)
    radii = body.limb * np.array([1.0, 0.62] if front else [1.05, 0.66, 0.58])
    parts = [Capsule(points[0], points[1], top, radii[0], **upper_coat)]
    for i in range(1, len(points) - 1):
        parts.append(
            Capsule(
                points[i], points[i + 1], radii[i - 1] * 0.95, radii[i], start=0.5, **lower_coat
            )
        )
    parts.append(Capsule(points[-1], toe, body.limb * 0.75, body.limb * 0.7, body.feet, limb=side))
    return parts, marks


def head_and_neck(body, rng, posture, trunk) -> tuple[list[Capsule], Marks]:
    """Neck, head, ears and what the species wears on them; marks eyes, nose and neck."""
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

    nose = at(body.snout / body.skull, 0, -0.2)
    bare = body.face is not None
    face, chin = body.face or body.coat, None if bare else body.belly
    coat = dict(colour=body.coat, belly=body.belly, coated=True)
    wide, slim = body.throat * 1.15, body.throat * 0.8
    parts = [
        Capsule(trunk(1.0, 0.1 * body.chest), base, body.chest * 0.8, wide, start=1.0, **coat),
        Capsule(base, skull, wide, slim, start=1.2, **coat),
        Capsule(skull, at(0.25, 0, 0), body.skull, body.skull * 0.95, face, coated=not bare),
        Capsule(at(0.5, 0, -0.1), nose, body.skull * 0.78, body.muzzle, face, chin),
    ]
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

    marks = {
        2: (tip, nose_radius * 1.6),
        3: (base, max(body.throat * 1.7, body.chest * 1.15)),
    }
    eye = max(0.17 * body.skull, 0.026)
    for side, joint in ((1, 0), (-1, 1)):
        spot = at(0.5, side * 0.74, 0.42)
        ring = body.ink if "goggles" in body.extras else (250, 244, 226)
        parts.append(Capsule(spot, spot, eye * 1.75, eye * 1.75, ring, bulge=0.8))
        dot = spot + left * side * eye * 0.9 + d * eye * 0.45
        pupil = (235, 235, 235) if "goggles" in body.extras else (12, 10, 12)
        parts.append(Capsule(dot, dot, eye, eye, pupil))
        marks[joint] = dot, eye * 1.2
        parts += ear(body, at, side)
    return parts + ornaments(body, at, base, skull, neck_axis), marks


def ear(body: Body, at, side: int) -> list[Capsule]:
    """One ear; `at` places points in the head's frame, in skull radii."""
    k = body.ear / body.skull
    colour = body.ears or body.coat
    if "trunk" in body.extras:  # an elephant's: a broad flap hanging beside and behind the head
        top, end = at(-0.85, side * 0.9, -0.05), at(-1.1, side * 1.15, -0.05 - 0.6 * k)
        wide, slim = body.ear_width, body.ear_width * 0.65
        return [Capsule(top, end, wide, slim, body.belly, bulge=0.2)]
    root, tip = at(-0.3, side * 0.62, 0.75), at(-0.4, side * (0.75 + 0.4 * k), 0.75 + 0.85 * k)
    return [Capsule(root, tip, body.ear_width, body.ear_width * 0.45, colour, bulge=0.5)]


def ornaments(body: Body, at, base, skull, neck_axis) -> list[Capsule]:
    """Horns, antlers, tusks, manes and crests."""
    parts = []

    def stick(curve, radius, colour=(226, 214, 188)):  # thick at its root
        points = [at(*point) for point in curve]
        radii = np.linspace(radius, 0.4 * radius, len(points))
        for i in range(len(points) - 1):
            parts.append(Capsule(points[i], points[i + 1], radii[i], radii[i + 1], colour))

    for side in (1, -1):
        if "horns" in body.extras:
            stick([(-0.1, side * 0.55, 0.9), (0, side * 1.35, 1.25), (0.2, side * 1.5, 1.85)], 0.04)
        if "spears" in body.extras:
            curve = [(0, side * 0.35, 0.9), (-0.9, side * 0.7, 2.6), (-1.1, side * 0.95, 4.2)]
            stick(curve, 0.03, (62, 50, 44))
        if "antlers" in body.extras:
            fork = (-0.8, side * 1.5, 2.6)
            stick([(-0.1, side * 0.4, 0.9), fork, (0.2, side * 1.9, 4.2)], 0.028)
            stick([fork, (-1.9, side * 2.1, 3.8)], 0.022)
            stick([(-0.4, side * 0.9, 1.7), (0.8, side * 1.0, 2.6)], 0.02)
        if "ossicones" in body.extras:
            stick([(-0.1, side * 0.35, 0.8), (-0.25, side * 0.4, 1.75)], 0.035, (70, 46, 32))
        if "tusks" in body.extras:
            curve = [(0.85, side * 0.45, -0.5), (1.5, side * 0.55, -1.1), (2.0, side * 0.5, -1.0)]
            stick(curve, 0.05, (246, 240, 222))
    if "nosehorn" in body.extras:
        stick([(1.75, 0, 0.3), (2.1, 0, 1.5)], 0.07, (168, 158, 142))
        stick([(1.1, 0, 0.5), (1.25, 0, 1.15)], 0.06, (168, 158, 142))
    if "mane" in body.extras:
        low = base - np.array([0, 0, 0.06])
        wide, slim = body.skull * 1.6, body.skull * 1.45
        parts.append(Capsule(at(-0.75, 0, -0.25), low, wide, slim, body.ink, bulge=0.85))
    if "crest" in body.extras:
        top = np.cross(neck_axis, np.array([0.0, 1.0, 0.0])) * body.throat
        points = [base + 1.1 * top, skull + 0.85 * top, at(0.1, 0, 1.05)]
        parts += [Capsule(a, b, 0.065, 0.055, body.ink) for a, b in itertools.pairwise(points)]
    return parts


def tail(body: Body, rng, posture, trunk) -> tuple[list[Capsule], Marks]:
    """The tail, hanging or lifted; marks its root."""
    root = trunk(-0.86 * body.rump, 0.46 * body.rump)
    hang = np.deg2rad(rng.uniform(-80, -25) if body.tail > 0.35 else rng.uniform(-60, 20))
    sway, points, widths = rng.normal(0, 0.25), [root], [1.0, 1.25, 1.15, 0.8]
    for i in range(3):
        step = body.tail / 3 * np.array([-np.cos(hang), sway * 0.5, np.sin(hang)])
        points.append(np.maximum(points[-1] + step, [-9, -9, body.tail_width]))
        hang += np.deg2rad(14 * (i + 1)) * (posture != "lie")
    parts = []
    for i in range(3):
        last = i >= (1 if "crest" in body.extras else 2) and body.tip is not None
        colour = body.tip if last else body.coat
        tuft = 1.8 if last and body.tail_width <= 0.05 else 1.0
        ra, rb = (body.tail_width * tuft * width for width in widths[i : i + 2])
        along = i * body.tail / 3
        parts.append(
            Capsule(points[i], points[i + 1], ra, rb, colour, coated=not last, start=along)
        )
    return parts, {4: (root, body.rump * 0.75)}
