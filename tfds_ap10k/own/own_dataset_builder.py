"""A user's own animals, with joints of their own, as a data set like AP-10K."""

import dataclasses
import re
from pathlib import Path
from typing import Self

import tensorflow_datasets as tfds

from tfds_ap10k import builder, sources, unlabeled
from tfds_ap10k.own import folder

INSTRUCTIONS = """\
Photographs of your own need no download. --dataset=own --manual-dir=FOLDER takes a folder with
  annotations/train.json, val.json and, if there is one, test.json, in COCO's keypoint style;
  or annotations.json, which is divided 7:1:2 within every species
  data/ or images/ with the photographs
  unlabeled/<family>/<species>/, or unlabeled/ and unlabeled.json, with those that nobody
  annotated, if there are any: they become the split `unlabeled`
A category is a species, its `supercategory` the family. All categories declare the same
`keypoints` (names, as left_ear) and `skeleton`. The data set is called own/NAME, NAME being
--config, or else the name of the folder.
"""


@dataclasses.dataclass(eq=False)
class Config(tfds.core.BuilderConfig):
    """Species, families and number of joints; empty where a built data set is only opened."""

    species: tuple[str, ...] = ()
    families: tuple[str, ...] = ()
    num_keypoints: int = 0


class Builder(builder.KeypointBuilder):
    """One record a photograph; see `records.features` for what is in it.

    `from_folder` makes one that can build. A built one is opened by its name alone: its features
    come from its own files, as with `tfds.builder("own/NAME")`.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}  # noqa: RUF012 (TFDS reads it from the class)
    LAYOUT = sources.Layout(
        "annotations/train.json or annotations.json",
        "annotations*",
        re.compile("(?!)"),  # nothing: only the folder that was named
        INSTRUCTIONS,
    )
    MANUAL_DOWNLOAD_INSTRUCTIONS = INSTRUCTIONS

    def __init__(self, *, config: str | Config = "", **kwargs):
        """Raises sources.DataNotFound for the name of a data set that has not been built."""
        config = Config(check_name(config)) if isinstance(config, str) else config
        super().__init__(config=config, **kwargs)

    @classmethod
    def open(cls, config: str, data_dir: Path | None) -> Self | None:
        try:
            return super().open(config, data_dir)
        except sources.DataNotFound:
            return None

    @classmethod
    def from_folder(cls, config: str, root: sources.Root, data_dir: Path | None) -> Self:
        """Raises annotations.AnnotationError if the categories cannot be used."""
        found = folder.declared(root)
        wanted = Config(
            check_name(config),
            species=tuple(name for name, _ in found.categories.values()),
            families=tuple(sorted({family for _, family in found.categories.values()})),
            num_keypoints=len(found.joints),
        )
        return cls(config=wanted, data_dir=data_dir)

    def _create_builder_config(self, builder_config: Config, version: str | None) -> Config:
        # TFDS's own would warn of every config that is not listed in the class.
        return builder_config

    def _info(self) -> tfds.core.DatasetInfo:
        config = self.builder_config
        if not config.species:
            config = self._built_from()
        return self.describe(
            species=config.species,
            families=config.families,
            num_keypoints=config.num_keypoints,
            homepage="",
        )

    def _built_from(self) -> Config:
        """The config that the data set was built with. Raises sources.DataNotFound."""
        name = self.builder_config.name
        if not (self.data_path / "features.json").exists():
            text = f"own/{name} has not been built: there is no {self.data_path}."
            raise sources.DataNotFound(f"{text}\n\n{INSTRUCTIONS}")
        features = tfds.features.FeaturesDict.from_config(self.data_path)
        return Config(
            name,
            species=tuple(features["species"].names),
            families=tuple(features["family"].names),
            num_keypoints=features["animals"].feature["keypoints"].shape[0],
        )

    def read(self, root: sources.Root) -> tuple[dict[str, dict], dict]:
        def annotated() -> tuple[dict[str, dict], dict]:
            return folder.read(root, progress=builder.checking)

        categories = folder.declared(root).categories
        return unlabeled.beside(root, annotated, categories, progress=builder.checking)

    def photographs(self, root: sources.Root) -> sources.Root:
        return folder.photographs(root)


def check_name(name: str) -> str:
    """The name, if TFDS can tell it from a version or a path. Raises ValueError."""
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        text = "cannot name a data set, as foxes in own/foxes: letters, digits, _ and - can"
        raise ValueError(f"{name!r} {text}")
    return name


def name_of(manual_dir: Path) -> str:
    """A name for the data set in this folder: the folder's, with _ for what a name cannot have."""
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", manual_dir.expanduser().resolve().name).strip("_")
    return check_name(name.lower())
