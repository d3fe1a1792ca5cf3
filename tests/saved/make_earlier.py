"""Save the models of `make_golden` as the version does that runs this, and what they give; later versions must load them.

python -m tests.saved.make_earlier VERSION
"""

import sys
from pathlib import Path

import numpy as np

from .make_golden import models

FOLDER = Path(__file__).parent

if __name__ == "__main__":
    for name, (model, new) in models().items():
        folder = FOLDER / f"earlier_{sys.argv[1]}" / name
        folder.parent.mkdir(exist_ok=True)
        model.save(folder, overwrite=True)
        np.savez_compressed(
            folder / "results.npz",
            aligned=model.get_latent_representation(),
            refined=model.get_latent_representation(representation="refined"),
            new=model.get_latent_representation(new),
            clusters=model.get_clusters(n_clusters=3, method="kmeans").to_numpy(str),
            new_clusters=model.get_clusters(new, n_clusters=3, method="kmeans").to_numpy(str),
        )
