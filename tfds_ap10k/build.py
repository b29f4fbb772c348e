"""Build AP-10K, Animal-Pose, COCO's people or your own animals as a TFDS data set.

No TensorFlow is needed.

    python -m tfds_ap10k.build --manual-dir=~/data
    python -m tfds_ap10k.build --manual-dir=~/data --config=all --data-dir=/big/disk
    python -m tfds_ap10k.build --dataset=animal_pose --manual-dir=~/data
    python -m tfds_ap10k.build --dataset=own --manual-dir=~/foxes

Every annotation and photograph is checked before anything is written; if something is wrong, all
of it is listed and nothing is built. Afterwards the data set is there for
tfds.data_source("ap10k/split1", split="train"), after `import tfds_ap10k`.
"""

import contextlib
import functools
import io
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import tensorflow_datasets as tfds

from ap10k_jax.runtime import command_line, errors, file_lock, files
from tfds_ap10k import AnimalPose, Ap10k, CocoKeypoints, Own, oddities, sources
from tfds_ap10k.builder import KeypointBuilder
from tfds_ap10k.own import own_dataset_builder

DATASETS = {builder.name: builder for builder in (Ap10k, AnimalPose, CocoKeypoints, Own)}
CONFIGS = tuple(Ap10k.builder_configs)


def build(
    config: str,
    manual_dir: str | Path | None,
    data_dir: str | Path | None = None,
    *,
    dataset: str = "ap10k",
    overwrite: bool = False,
) -> KeypointBuilder:
    """Build a data set from `manual_dir`, unless it is built already, and return its builder.

    `data_dir` defaults to TFDS's own, ~/tensorflow_datasets; `dataset` is one of DATASETS. An
    interrupted build is never taken for a complete one, and two processes that ask for the same
    data set build it once. Raises sources.DataNotFound, annotations.AnnotationError or
    files.DiskError; after the first two an earlier build is still intact.
    """
    make = DATASETS[dataset]
    data_dir = Path(data_dir).expanduser() if data_dir else None
    built = make.open(config, data_dir)
    if built is not None and not overwrite:
        return built
    if manual_dir is None:
        instructions = make.LAYOUT.instructions
        raise sources.DataNotFound(f"No folder with the data was named.\n\n{instructions}")
    root = sources.find(manual_dir, make.LAYOUT)
    if built is not None:
        built.read(root)  # raises before the old data set is deleted
    builder = make.from_folder(config, root, data_dir)
    folder = Path(builder.data_path).parents[2]  # of FOLDER/ap10k/split1/1.0.0
    full = "make room and build again; nothing of it was kept"
    with files.explain_disk_errors(folder, full=full, closed="choose another data directory"):
        folder.mkdir(parents=True, exist_ok=True)
        with file_lock.locked(folder / f".{dataset}-{config}.lock", wait=True):
            again = make.open(config, data_dir)
            if again is not None and not overwrite:
                return again
            return _build(functools.partial(make.from_folder, config, root, data_dir), manual_dir)


def _build(make: Callable[[], KeypointBuilder], manual_dir: str | Path) -> KeypointBuilder:
    """Build, replacing an earlier build; the caller holds the lock."""
    builder = make()
    place = Path(builder.data_path)
    for killed in place.parent.glob(f"incomplete.*_{place.name}"):  # as TFDS calls them
        shutil.rmtree(killed)
    if place.exists():  # to be overwritten, or damaged
        shutil.rmtree(place)
        builder = make()
    # TFDS announces a download that does not happen, and has bars of its own beside ours.
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            builder.download_and_prepare(
                download_config=tfds.download.DownloadConfig(manual_dir=manual_dir)
            )
    finally:
        tfds.enable_progress_bar()
    return builder


def choose(dataset: str, config: str | None, manual_dir: Path | None) -> tuple[str, ...]:
    """The configs to build; None stands for the first or, of own data, for the folder's name.

    Raises ValueError for one that is not known or cannot be a name.
    """
    if dataset == Own.name:
        if config is None and manual_dir is None:
            raise ValueError("which of your data sets? name it, or its folder with --manual-dir")
        name = config or own_dataset_builder.name_of(manual_dir)
        return (own_dataset_builder.check_name(name),)
    known = tuple(DATASETS[dataset].builder_configs)
    if config not in (None, *known, "all"):
        raise ValueError(f"{config!r}: {dataset} has {', '.join(known)} (or all)")
    return known if config == "all" else (config or known[0],)


def main() -> int:
    """The command line; returns the exit status."""
    parser = command_line.Parser(
        "tfds_ap10k.build",
        __doc__,
        epilog="\n".join(builder.LAYOUT.instructions for builder in DATASETS.values()),
    )
    parser.add_argument(
        "--dataset", default="ap10k", choices=DATASETS, help="what to build (default: ap10k)"
    )
    parser.add_argument(
        "--manual-dir", type=Path, help="folder with the downloaded data, zipped or unzipped"
    )
    parser.add_argument(
        "--config",
        help="split1, split2 or split3 of ap10k and animal_pose (default: split1), 2017 of "
        "coco_keypoints, or all; for own any name (default: that of the folder)",
    )
    parser.add_argument(
        "--data-dir", type=Path, help="where to build (default: ~/tensorflow_datasets)"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="build again what has been built before"
    )
    flags = parser.parse_args()
    try:
        chosen = choose(flags.dataset, flags.config, flags.manual_dir)
    except ValueError as error:
        parser.error(f"--config: {error}")
    status = 0
    for config in chosen:
        name = f"{flags.dataset}/{config}"
        try:
            before = DATASETS[flags.dataset].open(config, flags.data_dir)
            built_before = before is not None and not flags.overwrite
            builder = build(
                config,
                flags.manual_dir,
                flags.data_dir,
                dataset=flags.dataset,
                overwrite=flags.overwrite,
            )
        except (errors.UserError, OSError) as error:
            print(f"error: {name} was not built. {error}", file=sys.stderr)
            status = 1
            if isinstance(error, sources.DataNotFound):
                break  # the other configs would say the same
        except KeyboardInterrupt:
            print(f"\nInterrupted; nothing of {name} was kept.", file=sys.stderr)
            return 130
        else:
            _print_summary(name, builder, built_before=built_before)
    return status


def _print_summary(name: str, builder: KeypointBuilder, *, built_before: bool) -> None:
    counts = ", ".join(
        f"{len(coco['images'])} {split}"
        for split, coco in builder.info.metadata["annotations"].items()
    )
    done = "is built already (--overwrite builds it again)" if built_before else "is built"
    print(f"{name} {done}: {counts} photographs")
    print(f"  in {builder.data_path}")
    print("Unusual in its annotations, but allowed:")
    print(oddities.describe(builder.info.metadata["report"]))


if __name__ == "__main__":
    sys.exit(main())
