"""The layout of the code: which part may import which. One table, read from every file's imports.

Lower parts know nothing of upper ones, so that each can be read, tested and used alone. The rules
count all imports, also those inside of functions; what a module loads when it is imported counts
those at its top level alone.
"""

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]

# Short names of the tables below: data, models and so on are ap10k_jax.data, ap10k_jax.models.
ALONE = ("keypoints", "losses", "models")
CORE = (
    *("images", "codec", "transforms", "augmentation", "visualize", "box_files", "metrics"),
    *("checkpoint", "inference"),
)


class Layer(NamedTuple):
    """Modules, and all of ours that they may import beside themselves."""

    rule: int
    modules: tuple[str, ...]
    may_import: tuple[str, ...]


class Importers(NamedTuple):
    """A module or library, and all that may import it."""

    rule: int
    imported: str
    importers: tuple[str, ...]


class Never(NamedTuple):
    """Modules that must not load some library, neither themselves nor through what they import."""

    rule: int
    modules: tuple[str, ...]
    libraries: tuple[str, ...]


class Plain(NamedTuple):
    """Modules in whose code some names and texts do not occur."""

    rule: int
    modules: tuple[str, ...]
    but: tuple[str, ...]
    words: tuple[str, ...]


RULES = (
    # 1, 2: the core of the benchmark
    Layer(1, ("runtime",), ()),
    *(Layer(1, (module,), ()) for module in ALONE),
    Layer(2, CORE, ("runtime", "settings", *ALONE, *CORE)),
    # 3: the data sets are usable without the networks
    Layer(
        3,
        ("tfds_ap10k",),
        (
            *("keypoints", "images", "transforms", "visualize", "box_files"),
            *("runtime.errors", "runtime.files", "runtime.file_lock", "runtime.command_line"),
        ),
    ),
    Never(3, ("tfds_ap10k",), ("jax", "tensorflow")),
    # 4: who predicts needs no data sets
    Importers(
        4,
        "data",
        ("data", "evaluate", "train", "train_loop", "semi", "run", "run_data", "reproduce"),
    ),
    Never(
        4,
        ("predict", "convert", "export", "demo"),
        ("tensorflow_datasets", "grain", "tensorflow"),
    ),
    # 5: from the config to the results
    Importers(5, "run", ("main", "reproduce")),
    Importers(5, "run_data", ("run", "reproduce")),
    Layer(5, ("settings",), ("runtime", "configs", "tfds_ap10k.taxonomy", *ALONE, *CORE)),
    Importers(5, "main", ()),
    Layer(5, ("main",), ("run", "settings", "runtime", "configs")),
    # 6: keyword arguments elsewhere
    Importers(
        6,
        "ml_collections.ConfigDict",
        (
            *("settings", "run", "run_data", "train", "train_loop", "optimizer", "semi"),
            *("evaluate", "run_directory", "reproduce", "configs"),
        ),
    ),
    # 7: one place that knows each library
    Importers(7, "matplotlib", ("report.plots", "tfds_ap10k.describe.figures")),
    Importers(7, "orbax", ("checkpoint",)),
    Importers(7, "torch", ("convert.weight_files",)),
    Importers(7, "pycocotools", ("metrics",)),
    Importers(7, "onnxruntime", ("export",)),
    # 8: networks are plain Linen; what a device needs is in models/ops.py
    Plain(
        8,
        ("models",),
        ("models.ops",),
        (
            *("custom_vjp", "custom_jvp", "custom_gradient", "default_backend", "devices"),
            *("platform_dependent", "set_xla_metadata", "optimization_barrier"),
            *("cpu", "gpu", "tpu", "cuda"),
        ),
    ),
)


class Import(NamedTuple):
    """An import statement's name: a.b of `import a.b`, a.b.c of `from a.b import c`."""

    name: str
    line: int
    at_top: bool  # run when the module is imported


class Module(NamedTuple):
    """A file of the project."""

    path: str
    tree: ast.Module
    imports: tuple[Import, ...]


def module_of(path: str, source: str) -> Module:
    """A file with its imports."""
    tree = ast.parse(source)
    return Module(path, tree, tuple(_imports(tree, True)))


def _imports(node: ast.AST, at_top: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (Import(alias.name, child.lineno, at_top) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            if child.level:
                raise ValueError(f"line {child.lineno}: imports are absolute here")
            for alias in child.names:
                yield Import(f"{child.module}.{alias.name}", child.lineno, at_top)
        else:
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from _imports(child, at_top and not inside)


def project() -> dict[str, Module]:
    """Every file of the project by its dotted name."""
    modules = {}
    for folder in ("ap10k_jax", "tfds_ap10k", "configs"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            place = path.relative_to(ROOT)
            parts = place.with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            name = f"ap10k_jax.{name}" if folder == "configs" else name
            if place.as_posix() != "ap10k_jax/configs.py":  # which only leads to the folder
                modules[name] = module_of(place.as_posix(), path.read_text())
    return modules


def full(name: str) -> str:
    """The dotted name of a table's entry."""
    return name if name.startswith("tfds_ap10k") else f"ap10k_jax.{name}"


def is_in(name: str, parts: Iterable[str]) -> bool:
    """Whether a dotted name is one of these or lies below one of them."""
    return any(name == part or name.startswith(f"{part}.") for part in parts)


def resolve(name: str, modules: Mapping[str, Module]) -> str | None:
    """The module of ours that an import names: a.b of a.b.function; None for a library's."""
    while name and name not in modules:
        name = name.rpartition(".")[0]
    return name or None


def edges(module: str, modules: Mapping[str, Module]) -> Iterator[tuple[str, Import]]:
    """The modules of ours that a module imports, each with its import; not the module itself."""
    for entry in modules[module].imports:
        found = resolve(entry.name, modules)
        if found and found != module:
            yield found, entry


def loaded(module: str, modules: Mapping[str, Module]) -> dict[str, tuple[str, ...]]:
    """What importing a module imports: libraries and modules, with the way to each of them."""
    ways, todo = {module: (module,)}, [module]
    while todo:
        current = todo.pop(0)
        names = [entry.name for entry in modules[current].imports if entry.at_top]
        names += [current.rpartition(".")[0]]  # Python imports the packages around it, too
        for name in filter(None, names):
            found = resolve(name, modules) or name.split(".")[0]
            if found not in ways:
                ways[found] = (*ways[current], found)
                if found in modules:
                    todo.append(found)
    return ways


def breaches(rule, modules: Mapping[str, Module]) -> list[str]:
    """Sentences that say where a rule of the table is broken, and how."""
    return list(CHECKS[type(rule)](rule, modules))


def _layer(rule: Layer, modules: Mapping[str, Module]) -> Iterator[str]:
    own, allowed = map(full, rule.modules), [full(name) for name in rule.may_import]
    own = list(own)
    for module in modules:
        if not is_in(module, own):
            continue
        mine = [name for name in own if is_in(module, [name])]
        for found, entry in edges(module, modules):
            if not is_in(found, [*allowed, *mine]) and found not in ("ap10k_jax", "tfds_ap10k"):
                names = ", ".join(rule.may_import) or "nothing of ours"
                yield (
                    f"rule {rule.rule}: {modules[module].path}:{entry.line} imports {found}; "
                    f"{'/'.join(rule.modules)} may import {names}"
                )


def _importers(rule: Importers, modules: Mapping[str, Module]) -> Iterator[str]:
    is_ours = full(rule.imported) in modules
    imported = full(rule.imported) if is_ours else rule.imported
    allowed = [full(name) for name in rule.importers]
    for module, content in modules.items():
        if is_in(module, [*allowed, imported]):
            continue
        for entry in content.imports:
            name = resolve(entry.name, modules) if is_ours else entry.name
            if name and is_in(name, [imported]):
                only = ", ".join(rule.importers)
                yield (
                    f"rule {rule.rule}: {content.path}:{entry.line} imports {entry.name}; "
                    f"{f'only {only}' if only else 'no module'} may import {rule.imported}"
                )


def _never(rule: Never, modules: Mapping[str, Module]) -> Iterator[str]:
    for module in modules:
        if is_in(module, map(full, rule.modules)):
            ways = loaded(module, modules)
            for library in rule.libraries:
                if library in ways:
                    way = " > ".join(ways[library])
                    yield f"rule {rule.rule}: {modules[module].path} loads {library}: {way}"


def _plain(rule: Plain, modules: Mapping[str, Module]) -> Iterator[str]:
    for module, content in modules.items():
        if not is_in(module, map(full, rule.modules)) or is_in(module, map(full, rule.but)):
            continue
        for node in ast.walk(content.tree):
            word = node.attr if isinstance(node, ast.Attribute) else None
            word = node.id if isinstance(node, ast.Name) else word
            word = node.value if isinstance(node, ast.Constant) else word
            if isinstance(word, str) and word in rule.words:
                yield (
                    f"rule {rule.rule}: {content.path}:{node.lineno} has {word}; "
                    f"it belongs to {', '.join(rule.but)}"
                )


CHECKS = {Layer: _layer, Importers: _importers, Never: _never, Plain: _plain}


def circles(modules: Mapping[str, Module]) -> list[list[str]]:
    """Groups of modules that import each other, directly or not (Tarjan's components).

    A module may import a neighbour although its package's __init__ imports both.
    """
    graph = {
        module: {found for found, _ in edges(module, modules) if not module.startswith(f"{found}.")}
        for module in modules
    }
    index, low, stack, groups = {}, {}, [], []

    def visit(module: str) -> None:
        index[module] = low[module] = len(index)
        stack.append(module)
        for found in sorted(graph[module]):
            if found not in index:
                visit(found)
                low[module] = min(low[module], low[found])
            elif found in stack:
                low[module] = min(low[module], index[found])
        if low[module] == index[module]:
            position = stack.index(module)
            group = stack[position:]
            del stack[position:]
            if len(group) > 1:
                groups.append(sorted(group))

    for module in sorted(graph):
        if module not in index:
            visit(module)
    return groups


@pytest.fixture(scope="module")
def modules() -> dict[str, Module]:
    return project()


def name_of(rule) -> str:
    return f"{rule.rule}-{'+'.join(rule.modules) if hasattr(rule, 'modules') else rule.imported}"


@pytest.mark.parametrize("rule", RULES, ids=name_of)
def test_imports_follow_the_layout(rule, modules):
    found = breaches(rule, modules)
    assert not found, "\n" + "\n".join(found)


def test_no_two_modules_import_each_other(modules):
    found = circles(modules)
    assert not found, "\n" + "\n".join("rule 5: a circle of " + ", ".join(g) for g in found)


@pytest.mark.parametrize("rule", RULES, ids=name_of)
def test_a_table_names_modules_that_exist(rule, modules):
    """A misspelt name, or one of a module that is gone, would make a rule empty."""
    if isinstance(rule, Importers):
        names = rule.importers
    elif isinstance(rule, Layer):
        names = (*rule.modules, *rule.may_import)
    else:
        names = rule.modules + (rule.but if isinstance(rule, Plain) else ())
    missing = sorted({name for name in names if full(name) not in modules})
    assert not missing, f"rule {rule.rule} speaks of {', '.join(missing)}, which is not there"


@pytest.mark.parametrize(
    ("number", "module", "line", "said"),
    [
        (1, "ap10k_jax.runtime.files", "from ap10k_jax import keypoints", "ap10k_jax.keypoints"),
        (1, "ap10k_jax.losses", "import ap10k_jax.models", "losses may import nothing of ours"),
        (2, "ap10k_jax.codec", "def f():\n    from ap10k_jax.report import plots", "codec.py:2"),
        (3, "tfds_ap10k.splits", "from ap10k_jax import codec", "imports ap10k_jax.codec"),
        (3, "tfds_ap10k.splits", "from jax import numpy", "loads jax: tfds_ap10k.splits > jax"),
        (4, "ap10k_jax.demo", "from ap10k_jax.data import patches", "may import data"),
        (4, "ap10k_jax.predict.job", "import tfds_ap10k", "loads tensorflow_datasets"),
        (5, "ap10k_jax.reproduce.plan", "from ap10k_jax.main import cli", "may import main"),
        (6, "ap10k_jax.codec", "from ml_collections import ConfigDict", "ConfigDict"),
        (7, "ap10k_jax.visualize", "import matplotlib.pyplot as plt", "report.plots"),
        (7, "ap10k_jax.predict.job", "import torch", "convert.weight_files"),
        (8, "ap10k_jax.models.hrnet", "if jax.default_backend() == 'gpu': pass", "default_backend"),
    ],
)
def test_a_broken_rule_is_named(modules, number, module, line, said):
    path = modules[module].path
    changed = dict(modules) | {module: module_of(path, line)}
    before = [text for rule in RULES for text in breaches(rule, modules)]
    found = [text for rule in RULES for text in breaches(rule, changed) if text not in before]
    assert any(text.startswith(f"rule {number}: {path}") and said in text for text in found), found


def test_a_circle_is_found_also_through_functions(modules):
    changed = dict(modules) | {
        "ap10k_jax.losses": module_of("a", "def f():\n    from ap10k_jax import codec"),
        "ap10k_jax.codec": module_of("b", "from ap10k_jax.losses import heatmap_mse"),
    }
    assert any({"ap10k_jax.losses", "ap10k_jax.codec"} <= set(group) for group in circles(changed))


@pytest.mark.parametrize("module", ["predict", "convert", "export", "demo", "inference"])
def test_networks_are_used_without_loading_data_sets(module):
    """The rule above reads imports; this counts what Python really loads."""
    code = f"import sys, ap10k_jax.{module}; print(*sys.modules)"
    command = [sys.executable, "-W", "ignore", "-c", code]
    modules = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    heavy = {"tensorflow_datasets", "grain", "tensorflow", "ap10k_jax.data"}
    assert heavy.isdisjoint(modules.stdout.split())
