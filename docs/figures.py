"""Draw the figures of the landing page: ``python docs/figures.py``, on a CPU, in a minute."""

import tempfile
from pathlib import Path

import anndata as ad
import matplotlib as mpl
import matplotlib.pyplot as plt

import scrcl
from scrcl.cli import main

FOLDER = Path(__file__).parent / "_static"
#: Marker genes beside the name of a cluster.
N_GENES = 2


def demo(folder: Path) -> ad.AnnData:
    """The output of ``scrcl demo``, with the marker genes of the clusters."""
    output = folder / "demo.h5ad"
    assert main(["demo", "-o", str(output), "--markers", str(folder / "markers.csv")]) == 0
    return ad.read_h5ad(output)


def draw(adata: ad.AnnData) -> None:
    """The map by cluster, with the best marker genes, and by published type."""
    markers = adata.uns["scrcl_markers"]["names"]
    titles = {name: f"{name}  {', '.join(markers[name][:N_GENES])}" for name in adata.obs["scrcl"].cat.categories}
    adata.obs["cluster"] = adata.obs["scrcl"].cat.rename_categories(titles)
    for key, title, name in (
        ("cluster", "clusters, with their best marker genes", "clusters"),
        ("bulk_labels", "published annotation, not seen by the model", "published"),
    ):
        ax = plt.subplots(figsize=(6.4, 4.8), layout="constrained")[1]
        scrcl.pl.umap(
            adata,
            color=key,
            ax=ax,
            title="",
            legend_loc="on data",
            legend_fontsize=11,
            legend_fontweight="normal",
            size=140,
        )
        ax.set_title(title, fontsize=12)
        plt.savefig(FOLDER / f"{name}.png", dpi=200)
        plt.close()


if __name__ == "__main__":
    mpl.use("Agg")
    with tempfile.TemporaryDirectory() as folder:
        draw(demo(Path(folder)))
