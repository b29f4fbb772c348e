"""From `python -m ap10k_jax.main` to the first training step, cold and with compiled steps cached.

    python benchmarks/start.py [--model=hrnet_w32] [--batch=8] [--size=256]

Each start is a process of its own on a few drawn animals: cold with an empty cache of compiled
steps, then warm with the cache that the first has left. The data set is built before. Printed are
the seconds since the process began at which the parts were done.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tfds_ap10k import build, synthetic

ROOT = Path(__file__).parents[1]
# Runs in the started process: main as it is, with the clock read where the parts end.
PROGRAM = """
import json, sys, time
started = float(sys.argv[1])
times = {}
def done(part):
    times[part] = time.time() - started
from ap10k_jax.runtime import compile_cache
from ap10k_jax import main, run, run_data, run_log
done("import")
def after(module, name, part):
    function = getattr(module, name)
    def timed(*args, **kw):
        result = function(*args, **kw)
        done(part)
        return result
    setattr(module, name, timed)
after(run, "initial_variables", "initial weights")
after(run_data, "open_animals", "data opened")
call = compile_cache.BackgroundCompilation.__call__
def called(self, *arguments):
    self._ready.wait()
    done("step compiled")
    return call(self, *arguments)
compile_cache.BackgroundCompilation.__call__ = called
show = run_log.RunLog.show
def shown(self, **values):
    if values.get("now") == "compiling":
        done("state placed")
    if values.get("now") == "training":
        done("first step")
        print(json.dumps(times))
        sys.stdout.flush()
        import os
        os._exit(0)
    show(self, **values)
run_log.RunLog.show = shown
sys.argv = sys.argv[2:]
main.cli()
"""


def start(arguments: list[str], cache: Path) -> dict[str, float]:
    """Seconds since the start at which each part was done."""
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(cache)}
    command = [sys.executable, "-c", PROGRAM, str(time.time()), "main", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="hrnet_w32")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=256, help="side of the crops in pixels")
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        drawn = synthetic.generate(Path(folder, "drawn"), images=48)
        build.build("split1", manual_dir=drawn, data_dir=folder)
        common = [
            "--config=configs/sl.py",
            f"--config.data.dir={folder}",
            f"--config.model.name={flags.model}",
            f"--config.batch_size={flags.batch}",
            f"--config.data.image_size={flags.size}",
        ]
        print("| start | " + " | ".join(PARTS) + " |\n|---" + "|---" * len(PARTS) + "|")
        for kind in ("cold", "warm", "warm again"):
            arguments = [*common, f"--workdir={folder}/{kind}"]
            times = start(arguments, Path(folder, "cache"))
            print(
                f"| {kind} | " + " | ".join(f"{times[p]:.1f} s" for p in PARTS) + " |", flush=True
            )


PARTS = (
    "import",
    "data opened",
    "initial weights",
    "state placed",
    "step compiled",
    "first step",
)

if __name__ == "__main__":
    main()
