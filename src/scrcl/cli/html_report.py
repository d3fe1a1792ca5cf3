"""The report of a run: one self-contained HTML file, or the same as PDF."""

import base64
from datetime import date
from functools import partial
from importlib.resources import files
from io import BytesIO
from pathlib import Path

import jinja2
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes
from mudata import MuData

from scrcl import pl
from scrcl.cluster.cluster_tree import ClusterTree
from scrcl.cluster.tree import MAX_CONNECTIVITY
from scrcl.utils import keys

from .config import RunConfig
from .errors import UserError
from .summary import N_MARKERS, Summary

#: Cells that are mapped; of more, a random part.
MAX_MAPPED = 50_000
#: The context in which a dollar in the name of a type is no formula.
plain_text = partial(mpl.rc_context, {"text.parse_math": False})
#: Genes of each cluster that are drawn.
N_DRAWN = 3


def check_report(path: Path) -> None:
    """Refuse a PDF that could not be made in the end."""
    if path.suffix.lower() != ".pdf":
        return
    try:
        import weasyprint  # noqa: F401
    except (ImportError, OSError) as error:  # it, or the libraries that it draws with
        raise UserError(
            f"--report {path} needs WeasyPrint, and its library Pango.",
            "Install it, `pip install 'scrcl[pdf]'`, or name an .html file and print it from a browser.",
        ) from error


def write_report(
    page: Path, config: RunConfig, summary: Summary, data: AnnData | MuData, markers: pd.DataFrame | None
) -> None:
    """Write the report.

    Parameters
    ----------
    page
        File to write, which gets its name later.
    config
        The options; ``report`` has the name, whose ending gives the format.
    summary, data, markers
        What is shown.
    """
    with plain_text():
        figures = _figures(config, summary, data, markers)
    what = "cluster" if config.spatial_key is None else "domain"
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(files(__package__).joinpath("html_report.html").read_text(encoding="utf-8"))
    html = template.render(
        summary=summary,
        title=f"{len(summary.clusters)} {what}s in {Path(summary.input).name}",
        what=what,
        date=date.today().isoformat(),
        figures=figures,
        colors=_colors(data),
        largest=max(cluster.share for cluster in summary.clusters),
        n_markers=N_MARKERS,
        n_mapped=min(MAX_MAPPED, data.n_obs),
        others=summary.other_numbers(),
        splits=_splits(summary.tree),
        own_names=summary.tree is not None and not summary.tree.cut().eq(data.obs[keys.CLUSTERS_KEY].astype(str)).all(),
        bound=MAX_CONNECTIVITY,
        minutes=sum(summary.seconds.values()) / 60,
    )
    if config.report is not None and config.report.suffix.lower() == ".pdf":
        import weasyprint

        weasyprint.HTML(string=html).write_pdf(str(page))
    else:
        page.write_text(html, encoding="utf-8")


def _figures(
    config: RunConfig, summary: Summary, data: AnnData | MuData, markers: pd.DataFrame | None
) -> dict[str, str]:
    """Figures by name, as URLs that hold the picture."""
    mpl.use("Agg")
    rows = np.sort(np.random.default_rng(0).permutation(data.n_obs)[:MAX_MAPPED])
    cells = AnnData(
        obs=data.obs[[keys.CLUSTERS_KEY]].iloc[rows], obsm={keys.LATENT_KEY: data.obsm[keys.LATENT_KEY][rows]}
    )
    _, ax = plt.subplots(figsize=(5.2, 4.6), layout="constrained")
    many = len(summary.clusters) > 20
    pl.umap(cells, ax=ax, title="", legend_loc="on data", legend_fontsize=8 if many else 10, legend_fontoutline=2)
    axes = {"umap": ax}
    data.uns[COLORS_KEY] = cells.uns[COLORS_KEY]
    if summary.estimate is not None:
        axes["number"] = pl.n_clusters(summary.estimate)
    if summary.tree is not None:
        axes["tree"] = pl.cluster_tree(summary.tree)
    if markers is not None and len(markers):
        axes["markers"] = pl.markers_dotplot(markers, n_genes=N_DRAWN)
    if config.spatial_key is not None:
        drawn = pl.spatial(data, spatial_key=config.spatial_key, sample_key=config.sample_key)
        axes["space"] = drawn[0] if isinstance(drawn, list) else drawn
    pictures = {name: _picture(ax) for name, ax in axes.items()}
    plt.close("all")
    return pictures


def _splits(tree: ClusterTree | None) -> list[dict[str, object]]:
    """The splits that are drawn, the highest first."""
    return [] if tree is None else tree.first_splits.reset_index().to_dict("records")  # type: ignore[return-value]


COLORS_KEY = f"{keys.CLUSTERS_KEY}_colors"


def _colors(data: AnnData | MuData) -> dict[str, str]:
    """Colour of each cluster on the map."""
    return dict(zip(map(str, data.obs[keys.CLUSTERS_KEY].cat.categories), data.uns[COLORS_KEY], strict=False))


def _picture(ax: Axes) -> str:
    figure = ax.get_figure(root=True)
    assert figure is not None
    file = BytesIO()
    figure.savefig(file, format="png", dpi=130, bbox_inches="tight")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
