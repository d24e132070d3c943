"""Train as tunesmith does: `python run_tunesmith.py SPEC RESULT`."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

STARTED = float(sys.argv[3]) if len(sys.argv) > 3 else time.time()


def main() -> None:
    """Train on the rows in the order given."""
    spec = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    import numpy as np

    from tunesmith.recipe.load import load_recipe
    from tunesmith.training import order
    from tunesmith.training.train import train
    from watch import watch

    class Straight:
        """Instead of a shuffle: the rows as they stand in the file."""

        def permutation(self, count: int) -> np.ndarray:
            return np.arange(count)

    order.np = type(
        "numpy",
        (),
        {**vars(np), "random": type("random", (), {"default_rng": lambda *_: Straight()})},
    )  # type: ignore[attr-defined]
    times = watch()
    recipe = Path(sys.argv[2]).with_suffix(".recipe.json")
    recipe.write_text(json.dumps(spec["recipe"]), "utf-8")
    train(load_recipe(recipe))
    times.write(Path(sys.argv[2]), STARTED)


if __name__ == "__main__":
    main()
