"""The training state as few large arrays: all vectors in one, all kernels of one shape in another.

HRNet-w32 has 878 parameters. With Adam's moments and the running statistics 3,222 arrays would go
in and out of every training step. Each costs the host time, and each parameter costs the optimizer
a kernel of its own. Packed, they are about 130 arrays. Only the training loop sees packed states:
checkpoints, scoring and notebooks have the ordinary tree.

Convolution kernels are stored as OHWI because cuDNN computes their gradients in that layout.
"""

import collections
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

VECTORS = "vectors"


@dataclasses.dataclass(frozen=True)
class TreePacking:
    """The places of a tree's leaves in its packed arrays."""

    structure: jax.tree_util.PyTreeDef
    shapes: tuple[tuple[int, ...], ...]  # of the leaves
    groups: dict[str, list[int]]  # name of a packed array -> numbers of its leaves

    def pack(self, tree: PyTree[Array]) -> dict[str, Array]:
        """The leaves of a tree in few arrays."""
        leaves = self.structure.flatten_up_to(tree)
        packed = {}
        for name, members in self.groups.items():
            if name == VECTORS:
                packed[name] = jnp.concatenate([leaves[i] for i in members])
            else:
                packed[name] = jnp.stack([_to_ohwi(leaves[i]) for i in members])
        return packed

    def unpack(self, packed: dict[str, Array]) -> PyTree[Array]:
        """The tree; the inverse of `pack`."""
        leaves = [None] * len(self.shapes)
        for name, members in self.groups.items():
            if name == VECTORS:
                ends = np.cumsum([self.shapes[i][0] for i in members])
                parts = [
                    packed[name][end - self.shapes[i][0] : end]
                    for i, end in zip(members, ends, strict=True)
                ]
            else:
                parts = [_to_hwio(packed[name][place]) for place in range(len(members))]
            for i, part in zip(members, parts, strict=True):
                leaves[i] = part
        return jax.tree.unflatten(self.structure, leaves)


def tree_packing(shapes: PyTree[jax.ShapeDtypeStruct]) -> TreePacking:
    """The packing of a tree of float32 arrays: vectors, kernels (HWIO) and matrices."""
    leaves, structure = jax.tree.flatten(shapes)
    groups = collections.defaultdict(list)
    for i, leaf in enumerate(leaves):
        name = VECTORS if leaf.ndim == 1 else "x".join(map(str, leaf.shape))
        groups[name].append(i)
    return TreePacking(structure, tuple(leaf.shape for leaf in leaves), dict(groups))


@dataclasses.dataclass(frozen=True)
class Packing:
    """The packing of a network's variables, wherever they or trees like them are in a state."""

    params: TreePacking
    batch_stats: TreePacking

    @classmethod
    def of(cls, variables: dict) -> "Packing":
        """The packing of {'params', 'batch_stats'}, given as arrays or their shapes."""
        return cls(tree_packing(variables["params"]), tree_packing(variables["batch_stats"]))

    def pack(self, state: PyTree) -> PyTree:
        """A state with its parameters, statistics and what is shaped like them, such as moments."""
        return self._replace(state, {t.structure: t.pack for t in (self.params, self.batch_stats)})

    def unpack(self, state: PyTree) -> PyTree:
        """The inverse of `pack`."""
        trees = (self.params, self.batch_stats)
        packed = {jax.tree.structure(dict.fromkeys(t.groups, 0)): t.unpack for t in trees}
        return self._replace(state, packed)

    @staticmethod
    def _replace(state: PyTree, functions: dict) -> PyTree:
        def function_of(tree: PyTree):
            return functions.get(jax.tree.structure(tree)) if isinstance(tree, dict) else None

        return jax.tree.map(
            lambda tree: function_of(tree)(tree) if function_of(tree) else tree,
            state,
            is_leaf=lambda tree: function_of(tree) is not None,
        )


def _to_ohwi(kernel: Array) -> Array:
    return kernel.transpose(3, 0, 1, 2) if kernel.ndim == 4 else kernel


def _to_hwio(kernel: Array) -> Array:
    return kernel.transpose(1, 2, 3, 0) if kernel.ndim == 4 else kernel
