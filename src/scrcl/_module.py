"""The network: two branches, their refinement by genes, and the loss."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scvi.module.base import BaseModuleClass, LossOutput
from torch import Tensor, nn

from ._encoders import CellEncoder, GeneEncoder, NeighborhoodEncoder
from ._graph import symmetric_product
from ._losses import alignment_loss, cross_view_loss, neighborhood_loss, spread_loss


class SCRCLModule(BaseModuleClass):
    r"""The network of scRCL.

    A batch is a graph: a dictionary with the cell ``features`` ``(n, d)``, the binary ``adjacency`` ``(n, n)`` of the
    cells of the batch, and the ``propagation`` matrix ``(n, n)`` of the graph convolutions, both sparse CSR.

    Parameters
    ----------
    gene_profiles
        ``(G, d_g)`` features of the genes kept, propagated over the gene graph.
    n_input
        Number of cell features ``d``.
    n_hidden
        Number of hidden units ``h`` of each branch.
    n_refined
        Number of refined dimensions ``c``.
    temperature
        Temperature of the softmax in the alignment losses.
    dropout_rate
        Dropout in the second branch and before the map to gene space.
    """

    def __init__(
        self,
        gene_profiles: np.ndarray,
        n_input: int,
        n_hidden: int,
        n_refined: int,
        temperature: float,
        dropout_rate: float,
    ) -> None:
        super().__init__()
        n_genes, n_gene_features = gene_profiles.shape
        self.temperature = temperature
        self.cell_encoder = CellEncoder(n_input, n_hidden)
        self.neighborhood_encoder = NeighborhoodEncoder(n_input, n_hidden, dropout_rate)
        self.gene_encoder = GeneEncoder(n_gene_features, n_refined)
        self.to_genes = nn.Linear(n_hidden, n_genes)
        self.dropout = nn.Dropout(dropout_rate)
        self.register_buffer("gene_profiles", torch.from_numpy(gene_profiles), persistent=False)

    def _get_inference_input(self, tensors: dict[str, Tensor], **kwargs: Any) -> dict[str, Tensor]:
        return {"features": tensors["features"], "propagation": tensors["propagation"]}

    def inference(self, features: Tensor, propagation: Tensor) -> dict[str, Tensor]:
        """Encode the cells.

        Returns
        -------
        The unnormalised branch outputs ``hidden_1``, ``hidden_2`` and their L2-normalised rows ``embedding_1``,
        ``embedding_2``, each ``(n, h)``.
        """
        return self.views(
            features, symmetric_product(propagation, self.convolve(symmetric_product(propagation, features)))
        )

    def convolve(self, propagated: Tensor) -> Tensor:
        """The first graph convolution, of features ``(n, d)`` that are propagated over the graph."""
        return self.neighborhood_encoder.first(propagated)

    def views(self, features: Tensor, propagated: Tensor) -> dict[str, Tensor]:
        """What :meth:`inference` returns, from features ``(n, d)`` and what :meth:`convolve` gave, propagated."""
        hidden_1 = self.cell_encoder(features)
        hidden_2 = self.neighborhood_encoder.second(propagated)
        return {
            "hidden_1": hidden_1,
            "hidden_2": hidden_2,
            "embedding_1": F.normalize(hidden_1),
            "embedding_2": F.normalize(hidden_2),
        }

    def _get_generative_input(
        self, tensors: dict[str, Tensor], inference_outputs: dict[str, Tensor], **kwargs: Any
    ) -> dict[str, Tensor]:
        return {"hidden_1": inference_outputs["hidden_1"], "hidden_2": inference_outputs["hidden_2"]}

    def generative(self, hidden_1: Tensor, hidden_2: Tensor) -> dict[str, Tensor]:
        """Refine the views by cell-gene associations.

        Returns
        -------
        ``genes`` ``(G, c)``, the gene embeddings, and ``refined_1``, ``refined_2`` ``(n, c)``, the refined views with
        L2-normalised rows.
        """
        genes = self.gene_encoder(self.gene_profiles)
        # (H W + b) G = H (W G) + b G: the (n, n_genes) matrix is never formed.
        weight, bias = self.to_genes.weight.T @ genes, self.to_genes.bias @ genes
        refined_1 = F.normalize(self.dropout(hidden_1) @ weight + bias)
        refined_2 = F.normalize(self.dropout(hidden_2) @ weight + bias)
        return {"genes": genes, "refined_1": refined_1, "refined_2": refined_2}

    def loss(
        self,
        tensors: dict[str, Tensor],
        inference_outputs: dict[str, Tensor],
        generative_outputs: dict[str, Tensor],
        neighborhood_weight: float = 100.0,
        cross_view_weight: float = 1.0,
        spread_weight: float = 60.0,
        alignment_weight: float = 1.0,
    ) -> LossOutput:
        r"""The total loss.

        :math:`L = \lambda_0 L_\text{align} + \lambda_1 L_\text{nbr} + \lambda_2 L_\text{cross} + \lambda_3 L_\text{spread}`.

        Parameters
        ----------
        tensors, inference_outputs, generative_outputs
            The batch and what :meth:`inference` and :meth:`generative` made of it.
        neighborhood_weight
            :math:`\lambda_1`.
        cross_view_weight
            :math:`\lambda_2`.
        spread_weight
            :math:`\lambda_3`; 0 gives the published loss.
        alignment_weight
            :math:`\lambda_0`.
        """
        adjacency = tensors["adjacency"]
        views = inference_outputs["embedding_1"], inference_outputs["embedding_2"]
        alignment = alignment_loss(*views, self.temperature)
        neighborhood = neighborhood_loss(*views, adjacency, self.temperature)
        cross_view = cross_view_loss(generative_outputs["refined_1"], generative_outputs["refined_2"], adjacency)
        spread = spread_loss(*views)
        return LossOutput(
            loss=alignment_weight * alignment
            + neighborhood_weight * neighborhood
            + cross_view_weight * cross_view
            + spread_weight * spread,
            n_obs_minibatch=len(tensors["features"]),
            extra_metrics={
                "alignment_loss": alignment.detach(),
                "neighborhood_loss": neighborhood.detach(),
                "cross_view_loss": cross_view.detach(),
                "spread_loss": spread.detach(),
            },
        )

    def sample(self, *args: Any, **kwargs: Any) -> None:
        """Not available: the model describes cells by a discriminative loss and generates no counts."""
        raise NotImplementedError("SCRCL is not a generative model and cannot sample counts.")
