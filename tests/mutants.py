"""Mutation testing: change one thing in a module of the core, and see whether its tests notice.

    python tests/mutants.py codec                  every mutant of ap10k_jax/codec.py
    python tests/mutants.py metrics --sample=150   as many, drawn at random from --seed=0
    python tests/mutants.py codec --only=12,57     those alone, with their changes printed

The changes are mutmut's (numbers + 1, operators swapped, arguments dropped or None, assignments
None, strings altered, conditions forced), made also outside of functions, where mutmut's own
command makes none: there are the tables and constants. Not changed: annotations, decorators, doc
strings, f-strings, plain strings inside a `raise`, whose exact wording is nobody's contract, and
`main`, which is mostly help texts and has tests of its own.

One process imports what the tests need, without the project and without starting JAX; a fork of it
runs the tests with the mutant in place of the module. So a mutant costs its tests and no imports.
"""

import argparse
import functools
import importlib
import importlib.abc
import importlib.util
import json
import os
import random
import resource
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import libcst as cst
import pytest
from libcst.metadata import (
    ByteSpanPositionProvider,
    MetadataWrapper,
    ParentNodeProvider,
)
from mutmut.mutation.file_mutation import MutationVisitor
from mutmut.mutation.mutators import mutation_operators
from mutmut.mutation.pragma_handling import IgnoredCode

TESTS = Path(__file__).parent
ROOT = TESTS.parent

# What pytest is told for a module: the fast tests that state its facts.
TESTS_OF = {
    "codec": ["test_codec.py"],
    "losses": ["test_losses.py"],
    "metrics": ["test_metrics.py"],
    "transforms": ["test_transforms.py", "-k", "not imports_no_jax"],  # that one starts Python anew
    "augmentation": ["test_augmentation.py", "-k", "not imports_no_jax"],
    "images": ["test_images.py"],
    "keypoints": ["test_keypoints.py"],
    "convert.torch_names": [
        "convert/test_torch_names.py",
        "-k",
        "not there_and_back",
    ],  # of 90 M parameters
}

# Mutants that no test can tell from the module, and why: {"module": [{"from", "to", "why"}]}.
EQUIVALENT = TESTS / "equivalent_mutants.json"

# What these tests import but the project.
LIBRARIES = ("jax", "numpy", "cv2", "flax.linen", "optax", "matplotlib", "pycocotools.cocoeval")

SEED = 0
SECONDS = 60  # of processor time; a mutant that takes more hangs, which is noticed too


class Visitor(MutationVisitor):
    """mutmut's choice of what to change, less the strings of errors."""

    def __init__(self):
        super().__init__(mutation_operators, IgnoredCode(set(), set(), set()))

    def on_visit(self, node: cst.CSTNode) -> bool:
        if isinstance(node, cst.FunctionDef) and node.name.value == "main":
            return False
        if isinstance(node, cst.Raise):
            self._operators = [(t, f) for t, f in mutation_operators if t is not cst.BaseString]
        return super().on_visit(node)

    def on_leave(self, node: cst.CSTNode) -> None:
        if isinstance(node, cst.Raise):
            self._operators = mutation_operators
        super().on_leave(node)


def path_of(module: str) -> Path:
    return ROOT / "ap10k_jax" / f"{module.replace('.', '/')}.py"


def source_of(module: str) -> str:
    return path_of(module).read_text()


@functools.cache
def mutants(module: str) -> list[tuple[str, str, str]]:
    """(the lines that change, what they become, the whole mutated source) of each mutant."""
    source = source_of(module)
    wrapper = MetadataWrapper(cst.parse_module(source))
    visitor = Visitor()
    tree = wrapper.visit(visitor)
    spans, parents = (wrapper.resolve(p) for p in (ByteSpanPositionProvider, ParentNodeProvider))
    found = []
    for mutation in visitor.mutations:
        node, changed = mutation.original_node, mutation.mutated_node
        while node not in spans:  # an operator, of which libcst does not say where it is
            parent = parents[node]
            node, changed = parent, parent.deep_replace(node, changed)
        start, end = spans[node].start, spans[node].start + spans[node].length
        text = source.encode()
        mutated = (text[:start] + tree.code_for_node(changed).encode() + text[end:]).decode()
        found.append((*changes(source, mutated), mutated))
    return found


def changes(before: str, after: str) -> tuple[str, str]:
    """The lines from the first to the last that differ in two texts, without breaks and indents."""
    old, new = before.splitlines(), after.splitlines()
    start = equal_lines(old, new)
    end = equal_lines(old[:start:-1], new[:start:-1])
    return tuple(
        " ".join(line.strip() for line in lines[start : len(lines) - end]) for lines in (old, new)
    )


def equal_lines(one: list[str], other: list[str]) -> int:
    """How many lines two texts have in common before the first that differs."""
    pairs = zip(one, other, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def equivalent(module: str) -> dict[tuple[str, str], str]:
    """Why a mutant cannot be told from the module, for each that is known."""
    known = json.loads(EQUIVALENT.read_text()).get(module, []) if EQUIVALENT.exists() else []
    return {(entry["from"], entry["to"]): entry["why"] for entry in known}


class Planted(importlib.abc.MetaPathFinder, importlib.abc.SourceLoader):
    """Gives one module another source."""

    def __init__(self, module: str, source: str):
        self.name, self.source = f"ap10k_jax.{module}", source

    def find_spec(self, name, path=None, target=None):
        return importlib.util.spec_from_loader(name, self) if name == self.name else None

    def get_filename(self, name: str) -> str:
        return str(path_of(name.removeprefix("ap10k_jax.")))

    def get_data(self, path: str) -> bytes:
        return self.source.encode()


def prepare() -> None:
    """Imports what the tests import but the project itself."""
    sys.path[:0] = [str(ROOT), str(TESTS)]
    sys.dont_write_bytecode = True
    # What a mutant compiles is often what the module compiles.
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", tempfile.mkdtemp())
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    warnings.filterwarnings("ignore", message=".*fork")
    for name in LIBRARIES:
        importlib.import_module(name)
    running = sys.modules["jax"]._src.xla_bridge.backends_are_initialized()
    assert not running, "a fork of a running JAX would hang"


def verdict(module: str, source: str, log: Path) -> str:
    """'killed', 'hangs' or 'SURVIVED': what the module's tests say of this source in its place."""
    child = os.fork()
    if child == 0:
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        # Processor time, for the machine may be busy; the alarm is for what waits for ever.
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        signal.alarm(20 * SECONDS)
        sys.meta_path.insert(0, Planted(module, source))
        os.chdir(TESTS)
        code = 1
        try:
            compile(source, module, "exec")
            options = ["-x", "-q", "--noconftest", "--assert=plain", "-p", "no:cacheprovider"]
            code = pytest.main([*options, *TESTS_OF[module]])
        except SyntaxError:
            code = 0  # no mutant but nonsense: to be seen as such
        finally:
            os._exit(int(code))
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return "SURVIVED" if code == 0 else "killed" if code > 0 else "hangs"


def run(module: str, chosen: list[tuple[int, tuple]]) -> Iterator[tuple[int, str, str, str]]:
    """(number, change from, change to, verdict) of the chosen mutants."""
    known = equivalent(module)
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        if verdict(module, source_of(module), log) != "SURVIVED":
            raise SystemExit(f"the tests of {module} fail without any mutant:\n{log.read_text()}")
        for number, (before, after, source) in chosen:
            said = verdict(module, source, log)
            equal = said == "SURVIVED" and (before, after) in known
            yield number, before, after, "equivalent" if equal else said


def choose(module: str, count: int | None = None, seed: int = SEED) -> list[tuple[int, tuple]]:
    """Mutants with their numbers: all, or so many drawn at random."""
    numbered = list(enumerate(mutants(module)))
    if count is None or count >= len(numbered):
        return numbered
    return sorted(random.Random(f"{seed} {module}").sample(numbered, count), key=lambda m: m[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("module", choices=TESTS_OF)
    parser.add_argument("--sample", type=int, help="so many mutants, drawn at random")
    parser.add_argument("--seed", type=int, default=SEED, help="of what --sample draws")
    parser.add_argument("--only", help="numbers of mutants, with commas between")
    args = parser.parse_args()
    prepare()
    chosen = choose(args.module, args.sample, args.seed)
    if args.only:
        chosen = [m for m in chosen if str(m[0]) in args.only.split(",")]
    counts, started = Counter(), time.process_time()
    for number, before, after, said in run(args.module, chosen):
        counts[said] += 1
        shown = f"\n  - {before}\n  + {after}" if said != "killed" or args.only else ""
        print(f"{number} {said}{shown}", flush=True)
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = time.process_time() - started + usage.ru_utime + usage.ru_stime
    print(
        f"{args.module}: {len(chosen)} mutants, {dict(counts)}, {seconds:.0f} s of processor time"
    )
    sys.exit(counts["SURVIVED"] > 0)


if __name__ == "__main__":
    main()
