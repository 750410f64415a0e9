"""Draw the images in data/shapes: outlines of three kinds at random places, grey, 16×16 pixels, with noise."""

from pathlib import Path

import numpy as np
from PIL import Image

FOLDER = Path(__file__).parent / "data" / "shapes"
COUNTS = {"train": 32, "test": 12}
RESOLUTION = 16


def draw(kind: str, rng: np.random.Generator) -> np.ndarray:
    """An image (row, column), uint8."""
    rows, columns = np.indices((RESOLUTION, RESOLUTION)) - rng.integers(6, 10, size=(2, 1, 1))
    radius = rng.uniform(3, 5)
    far = {
        "circle": np.hypot(rows, columns),
        "square": np.maximum(abs(rows), abs(columns)),
        "diamond": (abs(rows) + abs(columns)) / 1.3,
    }[kind]
    bright = np.where(abs(far - radius) < 0.8, rng.uniform(120, 220), 20)
    return np.clip(bright + rng.normal(0, 25, bright.shape), 0, 255).astype(np.uint8)


if __name__ == "__main__":
    for number, kind in enumerate(("circle", "diamond", "square")):
        for part, count in COUNTS.items():
            folder = FOLDER / part / kind
            folder.mkdir(parents=True, exist_ok=True)
            for index in range(count):
                seed = [number, part == "test", index]
                Image.fromarray(draw(kind, np.random.default_rng(seed))).save(folder / f"{index:02}.png")
