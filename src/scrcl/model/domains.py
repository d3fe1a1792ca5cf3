"""Domains in space, and the borders between them."""

import pandas as pd

from scrcl.cluster.borders import domain_borders
from scrcl.nn.inference import Representation
from scrcl.utils.errors import ScrclValueError

from .base import SCRCLBase
from .docstrings import documented


class DomainsMixin(SCRCLBase):
    """Domains in space of :class:`scrcl.SCRCL`."""

    @documented
    def get_domain_borders(
        self,
        n_clusters: int | None = None,
        representation: Representation = "aligned",
        seed: int = 0,
        modality: str | None = None,
    ) -> pd.DataFrame:
        """Return how adjacent domains are separated: by a border, or by a cut through a gradient.

        The features of single cells, before smoothing, are compared on both sides, as they change with the distance from
        the border. Which side a cell is on is decided by the cells around it, so that its own noise makes no difference.

        Parameters
        ----------
        %(n_clusters)s
        %(representation)s
        %(seed)s
        %(cluster_modality)s

        Returns
        -------
        Data frame with a row for each two domains of :meth:`get_clusters` that are adjacent:

        - ``domain``, ``neighbor``: their names
        - ``contacts``: number of times that a cell of one is among the six nearest cells of one of the other
        - ``n_domain``, ``n_neighbor``: cells near the border that are compared, within 10 times the distance between cells
        - ``sharpness``: share of the difference that is at the border itself; about 0.8 for regions that differ and do not change
          within, 0 for a gradient, and uncertain by 0.2 or more if few cells are compared
        - ``score``: standard score of the difference near the border
        - ``verdict``: ``"border"`` for a sharpness above 0.4, ``"continuum"`` for a lower one, ``"none"`` for a score below 6, or
          ``"unclear"`` if fewer than 20 cells of each are near the other, in regions where most cells are of their domain

        Raises
        ------
        %(raises_untrained)s
        ValueError
            If the model has no coordinates, or an argument is out of range or unknown.

        Examples
        --------
        >>> tissue = scrcl.datasets.layered_tissue(n_cells=300)
        >>> scrcl.SCRCL.setup_anndata(tissue, spatial_key="spatial", sample_key="slice")
        >>> spatial_model = scrcl.SCRCL(tissue)
        >>> spatial_model.train(2)
        >>> borders = spatial_model.get_domain_borders(n_clusters=3)
        >>> set(borders["verdict"]) <= {"border", "continuum", "none", "unclear"}
        True
        """
        self._check_if_trained(warn=False)
        reference = self._reference
        if reference.spatial is None:
            raise ScrclValueError(
                "get_domain_borders requires coordinates.", f"Name them: {self._setup_call(spatial_key='spatial')}."
            )
        options = self._cluster_options(
            n_clusters=n_clusters, representation=representation, seed=seed, modality=modality
        )
        labels = self._results.clustering(options).labels
        features = reference.unsmoothed(options.view[1])
        rows = [
            (str(a), str(b), contacts, *border.n_cells, border.sharpness, border.score, border.verdict)
            for a, b, contacts, border in domain_borders(reference.spatial.slices, features, labels)
        ]
        columns = ["domain", "neighbor", "contacts", "n_domain", "n_neighbor", "sharpness", "score", "verdict"]
        return pd.DataFrame(rows, columns=columns)
