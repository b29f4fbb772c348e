"""Paints animals and places: posed bodies -> a picture, the joints that can be seen in it, boxes.

All drawn from numbers. A depth buffer decides what of an animal hides what, an owner mask which
animal a pixel shows; "visible" is read off these two and never guessed.

View frame: x right, y down, depth away from the camera, body units. Pictures: pixels, RGB.
"""

import dataclasses
import functools

import cv2
import numpy as np

from tfds_ap10k.synthetic.animals import Animal, Body, Capsule, pose, vary

TEXELS = 128  # coat texture cells per body unit; a tile is 2 body units wide and repeats

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


@dataclasses.dataclass
class Canvas:
    """A picture being painted."""

    rgb: np.ndarray  # (H, W, 3) float32, 0..255
    depth: np.ndarray  # (H, W) float32, nearest surface of the animal being painted
    owner: np.ndarray  # (H, W) int32: 0 background, 1.. animals, -1 what stands in front of them


def scene(body: Body, rng: np.random.Generator):
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
    canvas = Canvas(rgb, np.empty((height, width), np.float32), np.zeros((height, width), np.int32))
    angle, raised = rng.uniform(0, 2 * np.pi), rng.uniform(0.35, 0.75)
    light = np.array([0.45 * np.cos(angle), -raised, 0.0])  # from above; +z is toward us
    light[2] = np.sqrt(1 - light @ light)

    count = 1 if place == 8 else int(rng.choice([1, 2, 3, 4], p=[0.66, 0.22, 0.08, 0.04]))
    lanes = rng.permutation(count)  # where across the picture, from the farthest to the nearest
    joints = [
        placed(canvas, body, k, lane, count, place, light, rng) for k, lane in enumerate(lanes, 1)
    ]
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


def placed(canvas, body, k, lane, count, place, light, rng) -> np.ndarray:
    """Poses and paints animal k of count, the farthest first; its joints (17, 3) as x, y, seen."""
    height, width = canvas.depth.shape
    animal = pose(vary(body, rng), rng)
    # Degrees off profile, negative comes toward us: mostly profiles, some three-quarter views.
    low, high = [(-22, 22), (-58, -25), (25, 50)][rng.choice(3, p=[0.72, 0.2, 0.08])]
    yaw = np.deg2rad(rng.uniform(low, high))
    yaw = yaw if rng.random() < 0.5 else np.pi - yaw
    pitch = np.deg2rad(rng.uniform(3, 16))
    x0, y0, x1, y1 = extent(animal, yaw, pitch)
    size = np.array([x1 - x0, y1 - y0])
    share = rng.uniform(0.55, 0.92) if count == 1 else rng.uniform(0.62, 0.8) / (0.55 + 0.3 * count)
    scale = share * (np.array([width, height]) / size).min()
    if count > 1:  # neighbours may overlap, not bury one another
        scale = min(scale, 1.3 * width / count / size[0])
    if place == 8:
        scale *= rng.uniform(1.25, 1.6)  # a portrait: the hind part may leave the picture
    span = size * scale
    centre = rng.uniform(span[0] / 2, max(width - span[0] / 2, span[0] / 2 + 1))
    if count > 1:
        centre = (lane + 0.5) * width / count + rng.uniform(-0.08, 0.08) * width
    if place == 8:  # keep the head in
        ahead = np.sign(np.cos(yaw))
        centre = width / 2 - ahead * max(span[0] - width, 0) * rng.uniform(0.5, 0.58)
    elif rng.random() > 0.08:
        centre = np.clip(centre, span[0] / 2, max(width - span[0] / 2, span[0] / 2))
    top, low = span[1] + 2, height * 0.97
    bottom = low if top >= low else rng.uniform(max(top, height * (0.55 + 0.1 * k)), low)
    if place == 8:
        bottom = max(height * 0.97, span[1] + 4)
    origin = np.array([centre - (x0 + x1) / 2 * scale, bottom - y1 * scale])
    shadow(canvas.rgb, (centre, bottom), span, rng)
    return paint_animal(canvas, animal, k, yaw, pitch, scale, origin, light, rng)


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
            centre = (int(rng.integers(0, width)), y)
            cv2.ellipse(rgb, centre, axes, 0, 180, 360, shade(0.92), -1, cv2.LINE_AA)
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


def bush(canvas: Canvas, place: int, rng) -> None:
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


def blades(canvas: Canvas, place: int, rng) -> None:
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


def view(points: np.ndarray, yaw: float, pitch: float) -> np.ndarray:
    """Body points (..., 3) in the view frame (..., 3); yaw 0 faces right, pi / 2 away from us."""
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
    """Paints the animal as owner `index`; returns its joints (17, 3): x, y in pixels, seen 0/1.

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


def paint_capsule(
    canvas: Canvas, c: Capsule, ends, scale, tone, animal: Animal, offset, light, index
) -> None:
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
    # t runs from a to b; (nx, ny, nz) is the surface normal there, nz toward the camera.
    t = np.clip((px * dx + py * dy) / max(dx * dx + dy * dy, np.float32(1e-6)), 0, 1)
    radius = ra + t * np.float32(rb - ra)
    nx, ny = (px - t * dx) / radius, (py - t * dy) / radius
    flat = nx * nx + ny * ny
    nz = np.sqrt(np.maximum(1 - flat, 0))
    alpha = np.clip((1 - np.sqrt(flat)) * radius + 0.5, 0, 1)
    depth = az + t * np.float32(bz - az) - c.bulge * radius * nz
    region = np.s_[y0:y1, x0:x1]
    rows, cols = np.nonzero((alpha > 0) & (depth < canvas.depth[region]))
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
    """Share of ink (256, 256), 0..1, over 2 x 2 body units (along, across); tiles without seams."""
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
