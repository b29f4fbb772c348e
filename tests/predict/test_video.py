"""Videos are read frame by frame, and what is lost of them is known by its number."""

import cv2
import numpy as np
import pytest

from ap10k_jax.predict import video


def write(path, count=12, codec="MJPG"):
    """Frames whose grey value is ten times their number."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), 10, (64, 48))
    for i in range(count):
        writer.write(np.full((48, 64, 3), 10 * i, np.uint8))
    writer.release()
    return path


def numbers(frames):
    """(index, the number that the picture shows) of frames; None where there is no picture."""
    return [(f.index, None if f.image is None else round(f.image.mean() / 10)) for f in frames]


def marks(path):
    """Where each frame of an AVI begins."""
    content = path.read_bytes()
    start = content.index(b"movi")  # the name stands in the header too
    found = [i for i in range(start, len(content)) if content[i : i + 4] == b"00dc"]
    return content, found


@pytest.mark.parametrize(("name", "codec"), [("v.avi", "MJPG"), ("v.mp4", "mp4v")])
@pytest.mark.parametrize("start", [0, 5, 11, 12])
def test_frames_come_in_order_from_any_start(tmp_path, name, codec, start):
    path = write(tmp_path / name, codec=codec)
    assert numbers(video.read(path, start=start)) == [(i, i) for i in range(start, 12)]
    assert video.info(path) == video.VideoInfo(12, 10.0, 64, 48)


def test_frames_are_rgb(tmp_path):
    with video.Writer(tmp_path / "v.mp4", rate=10, size=(64, 48)) as writer:
        for _ in range(3):
            writer.write(np.full((48, 64, 3), (200, 60, 20), np.uint8))
    frame = next(video.read(tmp_path / "v.mp4"))
    np.testing.assert_allclose(frame.image.mean((0, 1)), (200, 60, 20), atol=8)


def test_a_broken_frame_does_not_move_those_after_it(tmp_path):
    path = write(tmp_path / "v.avi")
    content, found = marks(path)
    broken = bytearray(content)
    broken[found[6] + 8 : found[7]] = bytes(found[7] - found[6] - 8)
    path.write_bytes(broken)
    assert numbers(video.read(path)) == [(i, None if i == 6 else i) for i in range(12)]
    assert numbers(video.read(path, start=7)) == [(i, i) for i in range(7, 12)]


def test_what_a_cut_off_file_has_lost_is_named(tmp_path):
    path = write(tmp_path / "v.avi")
    content, found = marks(path)
    path.write_bytes(content[: found[5]])
    seen = numbers(video.read(path))
    assert [i for i, _ in seen] == list(range(12))
    assert seen[:5] == [(i, i) for i in range(5)]
    assert all(value is None for _, value in seen[5:])


@pytest.mark.parametrize("content", [b"", b"no video at all"])
def test_what_is_no_video_is_said(tmp_path, content):
    path = tmp_path / "v.mp4"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"v\.mp4: cannot be read as a video"):
        list(video.read(path))
    with pytest.raises(FileNotFoundError):
        video.info(tmp_path / "none.mp4")


def test_a_frame_of_another_size_is_refused(tmp_path):
    with (
        video.Writer(tmp_path / "v.mp4", rate=10, size=(64, 48)) as writer,
        pytest.raises(ValueError, match=r"\(48, 64\)"),
    ):
        writer.write(np.zeros((64, 48, 3), np.uint8))
    with pytest.raises(OSError, match="nowhere"):
        video.Writer(tmp_path / "nowhere" / "v.mp4", rate=10, size=(64, 48))


def points(x, score=1.0):
    x = np.asarray(x, float)
    return np.stack([x, 2 * x, np.full(len(x), score)], axis=-1)[:, None]


def test_a_parabola_is_already_smooth():
    t = np.arange(20)
    given = points(3 + 2 * t - 0.1 * t**2)
    np.testing.assert_allclose(video.smooth(given, t), given, atol=1e-9)


def test_smoothing_does_not_cross_gaps_or_lost_joints():
    t = np.array([*range(10), *range(20, 30)])
    jump = points([0.0] * 10 + [100.0] * 10)
    np.testing.assert_allclose(video.smooth(jump, t), jump, atol=1e-9)
    t = np.arange(20)
    lost = jump.copy()
    lost[10, 0] = -99, -99, 0
    np.testing.assert_allclose(video.smooth(lost, t), lost, atol=1e-9)
    # without the gap the jump is smeared: the check above can fail
    assert np.abs(video.smooth(jump, t) - jump).max() > 5


def test_a_stretch_too_short_to_smooth_stays():
    rng = np.random.default_rng(0)
    given = points(rng.normal(size=video.SMOOTHING_FRAMES - 1))
    np.testing.assert_array_equal(video.smooth(given, np.arange(len(given))), given)
