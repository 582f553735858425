"""Publish a dataset, stream it back within a disk budget, and learn from it batch by batch.

Run it with ``python examples/train_sklearn.py`` after ``pip install '.[demo]'`` in a clone.
"""

from __future__ import annotations

import asyncio
import tempfile

import numpy as np
from sklearn.linear_model import SGDClassifier

import dnc_async as dnc


async def main() -> float:
    """Train on nine batches, and return the accuracy on the tenth."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(10_000, 20)).astype(np.float32)
    y = (x[:, 0] + x[:, 1] > 0).astype(np.int8)
    model = SGDClassifier(loss="log_loss", random_state=0)
    accuracy = 0.0
    with tempfile.TemporaryDirectory() as store:
        published = await dnc.upload({"x": x, "y": y}, batch_size=1000, store=store)
        print(f"published {published}: {published.batches} batches")
        seen = 0
        async for batch in dnc.stream(published, store=store, disk_budget="1 MB"):
            seen += 1
            if seen < published.batches:
                model.partial_fit(batch["x"], batch["y"], classes=[0, 1])
            else:
                accuracy = float(model.score(batch["x"], batch["y"]))
    print(f"accuracy on the last batch: {accuracy:.3f}")
    return accuracy


if __name__ == "__main__":
    asyncio.run(main())
