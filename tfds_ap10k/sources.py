"""Find a data set in a folder: unzipped, or as a zip file, which is read in place.

Both give a `Root`, a path with `/`, `read_bytes` and `is_file`.
"""

import contextlib
import os
import re
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ap10k_jax.runtime import errors

Root = Path | zipfile.Path

AP10K_INSTRUCTIONS = """\
AP-10K must be downloaded by hand, from one of the two links on its official page,
https://github.com/AlexTheBad/AP-10K#download (ap-10k.zip, 3.4 GB):
  Google Drive  https://drive.google.com/file/d/1-FNNGcdtAQRehYYkGY1y4wzFNg4iWNad/view
  Baidu Pan     https://pan.baidu.com/s/1tBGHjHIjDBV9Wcwy_Y2pkw (code: 6uz6)
Put ap-10k.zip into a folder, zipped or unzipped, and name that folder with --manual-dir. It may
hold ap-10k.zip, a folder ap-10k (or ap10k, AP-10K), or annotations/ and data/ themselves.
Photographs without keypoints become the split `unlabeled` where they lie beside annotations/, in
unlabeled/<Family>/<species>/ or as a file unlabeled.json says; see tfds_ap10k/ap10k/README.md.

To try everything without the data, draw a small data set of the same shape with
  python -m tfds_ap10k.synthetic DEST
and give --manual-dir=DEST, or run the quickstart, which does that by itself:
  python -m ap10k_jax.main --config=configs/quickstart.py
"""


class Layout(NamedTuple):
    """Layout of a data set's folder, and the instructions where it is not found."""

    title: str
    file: str  # a file it has, below its folder; `*` stands for anything
    usual_name: re.Pattern  # that its folder or zip file has
    instructions: str


AP10K = Layout(
    "AP-10K",
    "annotations/ap10k-*.json",
    re.compile(r"ap[-_ ]?10k.*", re.IGNORECASE),
    AP10K_INSTRUCTIONS,
)
# Reading a broken, encrypted or exotically compressed zip entry raises any of these.
UNREADABLE = (OSError, RuntimeError, NotImplementedError, EOFError, zipfile.BadZipFile, zlib.error)


class DataNotFound(errors.UserError, FileNotFoundError):
    """The data set is not where it was looked for; the text says what to do about it."""


def find(manual_dir: str | Path, layout: Layout = AP10K) -> Root:
    """The folder, or folder within a zip, that holds the data set.

    Folders come before zip files, and what lies directly in `manual_dir` before what lies deeper.
    Raises DataNotFound with instructions.
    """
    manual_dir = Path(manual_dir).expanduser()
    if not manual_dir.is_dir():
        raise DataNotFound(f"{manual_dir} is not a folder.\n\n{layout.instructions}")
    # `unzip ap-10k.zip -d ap-10k` gives ap-10k/ap-10k
    folders = [manual_dir, *_children(manual_dir, layout)]
    folders += [child for folder in folders[1:] for child in _children(folder, layout)]
    for folder in folders:
        # Not just any annotations/: there may be one of something else too.
        if any(folder.glob(layout.file)):
            return folder
    damaged = []
    for file in sorted(path for path in manual_dir.iterdir() if path.suffix.lower() == ".zip"):
        if layout.usual_name.fullmatch(file.name):
            try:
                root = find_in_zip(file, layout)
            except UNREADABLE:
                damaged.append(file.name)
                continue
            if root is not None:
                return root
    remark = "".join(f" {name} is not a whole zip file; download it again." for name in damaged)
    raise DataNotFound(f"No {layout.title} found in {manual_dir}.{remark}\n\n{layout.instructions}")


def _children(folder: Path, layout: Layout) -> list[Path]:
    with contextlib.suppress(OSError):  # a folder we may not list holds nothing for us
        folders = (path for path in folder.iterdir() if path.is_dir())
        return sorted(path for path in folders if layout.usual_name.fullmatch(path.name))
    return []


def find_in_zip(file: Path, layout: Layout = AP10K) -> zipfile.Path | None:
    """The folder of a zip file that holds the data set, if any. Raises UNREADABLE errors."""
    # Entry names only ever select entries, nothing is extracted: none can climb out.
    archive = zipfile.ZipFile(file)
    for name in archive.namelist():
        path = PurePosixPath(name)
        if path.match(layout.file):
            above = len(path.parts) - len(PurePosixPath(layout.file).parts)
            prefix = "".join(f"{part}/" for part in path.parts[:above])
            return zipfile.Path(archive, prefix)
    archive.close()
    return None


def read(path: Root, *, max_bytes: int) -> bytes:
    """Read a regular file. Raises ValueError with the reason where that fails.

    More than `max_bytes` are refused: a zip entry can unpack to much more than the zip's own size.
    """
    try:
        if not path.is_file():
            raise ValueError("the file is missing")
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except UNREADABLE as error:
        raise ValueError(f"the file cannot be read ({type(error).__name__})") from error
    if len(data) > max_bytes:
        raise ValueError(f"the file is larger than {max_bytes >> 20} MiB")
    return data


def leads_outside(path: Root, folder: Root) -> bool:
    """True if a path below `folder` is a link out of it. Zip files have no links."""
    if isinstance(path, zipfile.Path):
        return False
    # os.path, because pathlib raises for links that go in a circle.
    return not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))
