"""Keypoints of the animals in photographs and videos.

  python -m ap10k_jax.predict runs/sl photos/
      every photograph below photos/, each as one animal that fills it
  python -m ap10k_jax.predict runs/sl photos/ --boxes=detections.json --write=coco,drawn
      an animal a box, of a file by a detector; COCO results, and pictures with skeletons
  python -m ap10k_jax.predict runs/sl cat.mp4 --write=dlc,drawn --smooth
      a video as DeepLabCut's tables, and as a video with skeletons, smoothed over time

The network needs a box around each animal. Without --boxes the whole picture is one box, which is
right only where a single animal fills it. --boxes takes

  MegaDetector's batch JSON      its animals; boxes as shares of the picture, frames of videos
  COCO JSON                      annotations with their images, or results with --coco-images
  CSV                            columns file, x, y, width, height in pixels; optional: score, frame
                                 (of a video, from 0), track (who it is, for --smooth)

A file is known by its path: the one in the file of boxes must be the end of the other. EXIF
rotation is ignored: coordinates refer to the pixels as they are stored (MegaDetector, which heeds
it, is understood). Videos are turned as they say.

What is written to --out:

  results.jsonl          always: a line for each photograph or frame as soon as it is done; started
                         again, the same command goes on from there and tries again what failed
  problems.txt           what could not be read or predicted, a line each; empty if all went well
  coco-keypoints.json    --write=coco: COCO keypoint results; coco-images.json says which id is what
  keypoints.csv          --write=csv: a row a joint: file, frame, animal, animal_score, joint, x, y,
                         score
  keypoints-wide.csv     --write=csv-wide: a row an animal, three columns a joint
  dlc/                   --write=dlc: DeepLabCut's CSV and HDF5, one a video; needs the extra `dlc`
  drawn/                 --write=drawn: pictures and videos with skeletons; the animal's own left is
                         orange, its right blue

With --smooth they go to smoothed/, and DeepLabCut's scorer names the filter; results.jsonl is raw.
A joint's score is the height of its peak in the heatmap, about 0 to 1; it is no probability.

Exit status: 0 all went well; 1 done with problems, which are listed, or not done; the message
says why.
"""

import argparse
import hashlib
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

import jax
from tqdm import tqdm

from ap10k_jax import box_files
from ap10k_jax.predict import formats, job, video
from ap10k_jax.predict.predictor import BATCH_SIZES, Predictor
from ap10k_jax.runtime import command_line, errors, file_lock, sharding
from ap10k_jax.runtime import files as file_writing

# What the command line turns into a message.
MISTAKES = (errors.UserError, OSError, ValueError, FloatingPointError)
FORMATS = ("coco", "csv", "csv-wide", "dlc", "drawn")
# On a CPU a batch of 64 is no faster than one of 8, and holds back what is done for longer.
CPU_BATCH_SIZES = (1, 8)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    options = parser().parse_args(argv)
    try:
        with errors.reported(*MISTAKES):
            return run(options)
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from here", file=sys.stderr)
        return 130


def parser() -> argparse.ArgumentParser:
    """Arguments and their help."""
    result = command_line.Parser("ap10k_jax.predict", __doc__)
    add = result.add_argument
    add("checkpoint", type=Path, help="a run's directory, one of its steps, or an exported folder")
    add("inputs", nargs="+", help="photographs, videos, folders (with all below), globs")
    add("--out", type=Path, default=Path("predictions"), help="output folder (%(default)s)")
    add("--boxes", type=Path, metavar="FILE", help="boxes by MegaDetector, as COCO or CSV")
    help = "leave out boxes whose score is below (%(default)s)"
    add("--box-score", type=float, default=0.2, metavar="SCORE", help=help)
    help = "only boxes of this category (name, or COCO number); may be repeated"
    add("--category", action="append", default=[], metavar="NAME", help=help)
    help = "the COCO file with the images that a file of COCO results means"
    add("--coco-images", type=Path, metavar="FILE", help=help)
    help = f"comma-separated, out of {', '.join(FORMATS)} (coco,csv)"
    add("--write", type=names_of_formats, default=("coco", "csv"), metavar="FORMATS", help=help)
    help = "draw joints whose score is above (%(default)s)"
    add("--draw-score", type=float, default=0.2, metavar="SCORE", help=help)
    help = (
        "smooth the keypoints of videos over time: Savitzky-Golay, "
        f"{video.SMOOTHING_FRAMES} frames, order {video.SMOOTHING_ORDER}"
    )
    add("--smooth", action="store_true", help=help)
    help = "without the mirror test: twice as fast, a little less exact"
    add("--no-mirror", action="store_true", help=help)
    return result


def names_of_formats(text: str) -> tuple[str, ...]:
    """The entries of --write."""
    chosen = tuple(name.strip() for name in text.split(",") if name.strip())
    unknown = [name for name in chosen if name not in FORMATS]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r}: one of {', '.join(FORMATS)}")
    return chosen


def run(options: argparse.Namespace) -> int:
    """Predict, write, and say what went wrong. Returns the exit status."""
    if "dlc" in options.write and not all(map(importlib.util.find_spec, ("pandas", "tables"))):
        raise job.JobError("--write=dlc needs pandas and tables: pip install 'ap10k_jax[dlc]'")
    box_file = read_boxes(options)
    files = job.find(options.inputs)
    if not files:
        raise job.JobError(f"no photograph or video in {' '.join(options.inputs)}")
    sharding.use_compilation_cache()
    sizes = CPU_BATCH_SIZES if jax.default_backend() == "cpu" else BATCH_SIZES
    flip_test = False if options.no_mirror else None
    predictor = Predictor.load(options.checkpoint, flip_test=flip_test, batch_sizes=sizes)

    full = "make room, and start the same command again; the results so far are kept"
    with file_writing.explain_disk_errors(options.out, full=full, closed="choose another --out"):
        options.out.mkdir(parents=True, exist_ok=True)
        with file_lock.locked(options.out / "lock"):
            return predict_and_write(options, predictor, files, box_file)


def predict_and_write(
    options: argparse.Namespace,
    predictor: Predictor,
    files: Sequence[str],
    box_file: box_files.BoxFile | None,
) -> int:
    """`run`, with all that it needs and a folder that no other process writes to."""
    with job.Results(options.out / "results.jsonl", settings(options, predictor)) as results:
        kept = len(results.records)
        if kept:
            print(f"{options.out}: going on after {kept} results", file=sys.stderr)
        with tqdm(total=job.pictures(files, results), unit="picture") as bar:
            job.run(predictor, files, results, boxes=box_file, progress=bar.update)
    paths = write(options, results.records, predictor, box_file)
    problems = results.problems()
    file_writing.write_text(options.out / "problems.txt", "".join(f"{line}\n" for line in problems))

    pictures = [record for record in results.records if "animals" in record]
    animals = sum(len(record["animals"]) for record in pictures)
    print(f"{animals} animals in {len(pictures)} pictures; {results.path}")
    for path in paths if len(paths) < 8 else sorted({path.parent for path in paths}):
        print(f"  {path}")
    if problems:
        print(f"{len(problems)} problems, all in {options.out / 'problems.txt'}:")
        print("".join(f"  {line}\n" for line in problems[:20]), end="")
    return 1 if problems else 0


def read_boxes(options: argparse.Namespace) -> box_files.BoxFile | None:
    """The file of --boxes, if there is one."""
    if options.boxes is None:
        return None
    return box_files.read(
        options.boxes,
        threshold=options.box_score,
        categories=options.category,
        images=options.coco_images,
    )


def settings(options: argparse.Namespace, predictor: Predictor) -> dict:
    """Digest of all that results depend on: jobs that differ in it must not share a file."""
    chosen = {
        "network": predictor.name,
        "weights": job.fingerprint(predictor.variables),
        "mirror_test": predictor.flip_test,
        "decode": predictor.decode,
        "image_size": predictor.image_size,
        "keypoints": list(predictor.keypoint_set.names),
        "boxes": None,
    }
    if options.boxes:
        digest = hashlib.sha256(options.boxes.read_bytes()).hexdigest()[:16]
        chosen["boxes"] = [digest, options.box_score, sorted(options.category)]
    return chosen


def write(
    options: argparse.Namespace,
    records: list[dict],
    predictor: Predictor,
    box_file: box_files.BoxFile | None,
) -> list[Path]:
    """The formats of --write; returns the files."""
    folder, scorer = options.out, f"ap10k_jax_{predictor.name}"
    if options.smooth:
        records = formats.smoothed(records)
        folder, scorer = options.out / "smoothed", f"{scorer}_{video.SMOOTHING}"
        folder.mkdir(exist_ok=True)
    joints = predictor.keypoint_set
    paths = []
    if "coco" in options.write:
        paths += formats.write_coco(folder, records, keypoint_set=joints, box_file=box_file)
    if "csv" in options.write:
        paths += formats.write_csv(folder, records, keypoint_set=joints)
    if "csv-wide" in options.write:
        paths += formats.write_csv_wide(folder, records, keypoint_set=joints)
    if "dlc" in options.write:
        paths += formats.write_dlc(folder, records, keypoint_set=joints, scorer=scorer)
    if "drawn" in options.write:
        paths += formats.draw(folder, records, keypoint_set=joints, threshold=options.draw_score)
    return paths


if __name__ == "__main__":
    sys.exit(main())
