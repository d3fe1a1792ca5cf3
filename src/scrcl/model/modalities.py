"""What the model says of its modalities. Wiring only."""

from typing import Any

import pandas as pd

from scrcl.utils.errors import ScrclValueError

from .base import Data, Indices, cell_names
from .cells import CellsMixin


class ModalitiesMixin(CellsMixin):
    """The methods of :class:`scrcl.SCRCL` that speak of modalities."""

    def get_modality_weights(self, adata: Data | None = None, indices: Indices = None) -> pd.DataFrame:
        """Return how much each modality counts for each cell.

        A modality counts as far as the neighbours of the cell in it predict the cell in the others, and as far as one
        half of its features predicts the other half. So noise, or a modality whose cells were mixed up, hardly counts.
        Of two modalities that contradict each other, the one with more structure counts more: which of them is wrong
        cannot be known from two.

        Parameters
        ----------
        adata, indices
            Cells to return, as in :meth:`get_latent_representation`.

        Returns
        -------
        Data frame of cells by modalities, float32. Rows sum to 1.

        Raises
        ------
        ValueError
            If the model is of one modality, or the data do not fit it.

        Examples
        --------
        >>> scrcl.SCRCL.setup_mudata(mdata, modalities={"rna": "rna", "prot": "protein"})
        >>> model = scrcl.SCRCL(mdata)
        >>> weights = model.get_modality_weights()
        >>> list(weights.columns)
        ['rna', 'prot']
        """
        if not self._several:
            raise ScrclValueError("The model has one modality.", "Set several up with `SCRCL.setup_mudata`.")
        data, reference = self._data(adata), self._reference
        query = self._query(data, indices)
        weights = query.take(reference.weights, lambda: query.placement.modality_weights[query.new])
        return pd.DataFrame(weights, index=cell_names(data, indices), columns=list(reference.modalities))

    def get_var_names(self, legacy_mudata_format: bool = False) -> Any:
        """Return the names of the variables of the data.

        Parameters
        ----------
        legacy_mudata_format
            As in :meth:`scvi.model.SCVI.get_var_names`.

        Returns
        -------
        Array of names; of several modalities, a dictionary of them.

        Examples
        --------
        >>> "CD79A" in model.get_var_names()
        True
        """
        if self._several and self.adata is None:
            return {name: found.names.to_numpy(str) for name, found in self._reference.modalities.items()}
        return super().get_var_names(legacy_mudata_format)
