"""How files go wrong: bytes that are flipped, lost or swollen, JSON values that are not what they
should be. Hypothesis strategies, for `test_fuzz.py`.
"""

import copy
import json
import zlib

from hypothesis import strategies as st

# What a field may turn into: every JSON type, numbers that floats and integers stumble over, names
# that lead elsewhere or are no text.
JUNK = (
    *(None, True, False, 0, -1, 3, 2**31, 2**63, 10**12, 10**400, -(10**400)),
    *(0.5, -0.0, 1e-300, 1e308, -1e308, float("nan"), float("inf"), float("-inf")),
    *("", "7", "nan", "fox", "../x.jpg", "/etc/passwd", "C:\\x", "a\0b", "\ud800", "x" * 5000),
    *([], [[]], [0, 0, 0, 0], [1e9, 1e9, 1e9, 1e9], ["1", "2", "3", "4"], {}, {"id": {}}),
    *([float("nan")] * 4, [5, 5, -3, -3], [0, 0, float("inf"), float("inf")], [1] * 51),
)


@st.composite
def bytes_like(draw, data: bytes) -> bytes:
    """The bytes, damaged in one to four places."""
    broken = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(broken) - 1, 0)))
        kind = draw(st.sampled_from(("flip", "set", "cut", "drop", "double", "insert", "zero")))
        length = draw(st.sampled_from((1, 2, 4, 16, 300)))
        if not broken or kind == "cut":
            del broken[at:]
        elif kind == "flip":
            broken[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "set":
            broken[at] = draw(st.sampled_from((0, 1, 0x7F, 0x80, 0xFE, 0xFF)))
        elif kind == "drop":
            del broken[at : at + length]
        elif kind == "double":
            broken[at:at] = broken[at : at + length]
        elif kind == "insert":
            broken[at:at] = draw(st.binary(min_size=1, max_size=8))
        else:
            broken[at : at + length] = bytes(len(broken[at : at + length]))
    return bytes(broken)


@st.composite
def header_like(draw, data: bytes, length: int) -> bytes:
    """As `bytes_like`, within the first so many bytes: that is where sizes are."""
    return draw(bytes_like(data[:length])) + data[length:]


@st.composite
def json_like(draw, content: object, *, most: int = 3) -> object:
    """The value with up to `most` of its inner values replaced, removed, doubled or renamed."""
    broken = copy.deepcopy(content)
    for _ in range(draw(st.integers(1, most))):
        places = list(_places(broken))
        if not places:
            return broken
        container, key = draw(st.sampled_from(places))
        kind = draw(st.sampled_from(("junk", "junk", "junk", "drop", "double", "other")))
        if kind == "drop":
            del container[key]
        elif kind == "double" and isinstance(container, list):
            container.insert(key, copy.deepcopy(container[key]))
        elif kind == "other":  # a value from elsewhere in the file
            home, name = draw(st.sampled_from(places))
            if _has(home, name):
                container[key] = copy.deepcopy(home[name])
        else:
            container[key] = copy.deepcopy(draw(st.sampled_from(JUNK)))
    return broken


@st.composite
def json_bytes_like(draw, content: object) -> bytes:
    """A JSON file of a broken value, or a broken file of the value."""
    if draw(st.integers(0, 3)):
        return dumped(draw(json_like(content)))
    text = json.dumps(content).encode()
    return draw(
        st.one_of(
            bytes_like(text),
            st.sampled_from((b"", b"null", b"[]", b"{}", b"[" * 50_000, b"9" * 5000, text[:-1])),
            st.just(b"\xef\xbb\xbf" + text),
            st.just(json.dumps(content).encode("utf-16")),
        )
    )


def dumped(content: object) -> bytes:
    """As JSON; integers of 400 digits included, lone surrogates as escapes."""
    return json.dumps(content).encode()


def deflated(length: int) -> bytes:
    """A PNG's compressed data that unpack to so many zeros."""
    pressed = zlib.compressobj(9)
    piece = bytes(1 << 20)
    parts = [pressed.compress(piece) for _ in range(length >> 20)]
    return b"".join([*parts, pressed.flush()])


def _places(value: object):
    """Every (container, key) within a JSON value."""
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], dict | list):
            yield from _places(value[key])


def _has(container: object, key: object) -> bool:
    return key in container if isinstance(container, dict) else key < len(container)
