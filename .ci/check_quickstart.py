"""Fails unless the quickstart run in the given directory learnt something and drew its pictures."""

import json
import sys
from pathlib import Path

workdir = Path(sys.argv[1])
results = json.loads((workdir / "results.json").read_text())
ap = results["validation"]["AP"]
print(f"validation AP {ap:.3f}, test AP {results['test']['AP']:.3f}")
assert ap >= 0.5, f"validation AP {ap:.3f} is below the promised 0.5"
assert (workdir / "animals-validation.png").stat().st_size > 10_000
