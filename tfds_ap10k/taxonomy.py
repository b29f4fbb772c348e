"""The species, families and backgrounds of AP-10K: 54 species in 23 families, 8 backgrounds.

Ids are those of the official annotation files, where a category is a species and its supercategory
is the family. ClassLabels count from 0: the label of a species is its id - 1.
"""

from typing import NamedTuple


class Species(NamedTuple):
    id: int  # category_id in the annotation files, 1..54
    name: str
    family: str


SPECIES = (
    Species(1, "antelope", "Bovidae"),
    Species(2, "argali sheep", "Bovidae"),
    Species(3, "bison", "Bovidae"),
    Species(4, "buffalo", "Bovidae"),
    Species(5, "cow", "Bovidae"),
    Species(6, "sheep", "Bovidae"),
    Species(7, "arctic fox", "Canidae"),
    Species(8, "dog", "Canidae"),
    Species(9, "fox", "Canidae"),
    Species(10, "wolf", "Canidae"),
    Species(11, "beaver", "Castoridae"),
    Species(12, "alouatta", "Cercopithecidae"),
    Species(13, "monkey", "Cercopithecidae"),
    Species(14, "noisy night monkey", "Cercopithecidae"),
    Species(15, "spider monkey", "Cercopithecidae"),
    Species(16, "uakari", "Cercopithecidae"),
    Species(17, "deer", "Cervidae"),
    Species(18, "moose", "Cervidae"),
    Species(19, "hamster", "Cricetidae"),
    Species(20, "elephant", "Elephantidae"),
    Species(21, "horse", "Equidae"),
    Species(22, "zebra", "Equidae"),
    Species(23, "bobcat", "Felidae"),
    Species(24, "cat", "Felidae"),
    Species(25, "cheetah", "Felidae"),
    Species(26, "jaguar", "Felidae"),
    Species(27, "king cheetah", "Felidae"),
    Species(28, "leopard", "Felidae"),
    Species(29, "lion", "Felidae"),
    Species(30, "panther", "Felidae"),
    Species(31, "snow leopard", "Felidae"),
    Species(32, "tiger", "Felidae"),
    Species(33, "giraffe", "Giraffidae"),
    Species(34, "hippo", "Hippopotamidae"),
    Species(35, "chimpanzee", "Hominidae"),
    Species(36, "gorilla", "Hominidae"),
    Species(37, "orangutan", "Hominidae"),
    Species(38, "rabbit", "Leporidae"),
    Species(39, "skunk", "Mephitidae"),
    Species(40, "mouse", "Muridae"),
    Species(41, "rat", "Muridae"),
    Species(42, "otter", "Mustelidae"),
    Species(43, "weasel", "Mustelidae"),
    Species(44, "raccoon", "Procyonidae"),
    Species(45, "rhino", "Rhinocerotidae"),
    Species(46, "marmot", "Sciuridae"),
    Species(47, "squirrel", "Sciuridae"),
    Species(48, "pig", "Suidae"),
    Species(49, "mole", "Talpidae"),
    Species(50, "black bear", "Ursidae"),
    Species(51, "brown bear", "Ursidae"),
    Species(52, "panda", "Ursidae"),
    Species(53, "polar bear", "Ursidae"),
    Species(54, "bat", "Vespertilionidae"),
)

# In order of first appearance above, which is also alphabetical.
FAMILIES = tuple(dict.fromkeys(species.family for species in SPECIES))

# The `background` of an image, 1..8, as the official page lists them. The files also hold values
# that are not documented (9 and 88 in the train split 1); those become "unknown".
BACKGROUNDS = {
    1: "grass or savanna",
    2: "forest or shrub",
    3: "mud or rock",
    4: "snowfield",
    5: "zoo or human habitation",
    6: "swamp or riverside",
    7: "desert or gobi",
    8: "mugshot",
}
UNKNOWN_BACKGROUND = "unknown"
BACKGROUND_NAMES = (*BACKGROUNDS.values(), UNKNOWN_BACKGROUND)

_BY_NAME = {species.name: species for species in SPECIES}
_BY_ID = {species.id: species for species in SPECIES}


def family_of(name: str) -> str:
    """The family of a species: Canidae for "fox". Raises KeyError for a name that is unknown."""
    return _BY_NAME[name].family


def id_of(name: str) -> int:
    """The official category id (1..54) of a species."""
    return _BY_NAME[name].id


def name_of(species_id: int) -> str:
    """The species with this official category id (1..54)."""
    return _BY_ID[species_id].name


def species_in(family: str) -> tuple[str, ...]:
    """The names of the species of a family, in the order of their ids."""
    if family not in FAMILIES:
        raise KeyError(family)
    return tuple(species.name for species in SPECIES if species.family == family)


def background_name(value: int) -> str:
    """The name of a `background` value; "unknown" where it is undocumented."""
    return BACKGROUNDS.get(value, UNKNOWN_BACKGROUND)
