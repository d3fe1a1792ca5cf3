"""Makes the saved model of version 0.1 that a test loads for ever. Run once; later versions must load what it made.

python -m tests.saved.make_model
"""

from pathlib import Path

import numpy as np

from tests.conftest import build, simulate

FOLDER = Path(__file__).parent / "model_0.1"

if __name__ == "__main__":
    adata, new = simulate(60, 40), simulate(10, 40, seed=5)
    model = build(adata, n_hidden=8, n_refined=4, n_components=5, epochs=3)
    model.save(FOLDER, overwrite=True)
    np.savez(
        FOLDER / "results.npz",
        counts=adata.X.toarray(),
        new_counts=new.X.toarray(),
        genes=adata.var_names.to_numpy(dtype=str),
        aligned=model.get_latent_representation(),
        refined=model.get_latent_representation(representation="refined"),
        clusters=model.get_clusters(n_clusters=3, method="kmeans").to_numpy(dtype=str),
        new=model.get_latent_representation(new),
        new_clusters=model.get_clusters(new, n_clusters=3, method="kmeans").to_numpy(dtype=str),
    )
