"""The network: two branches for each modality, their refinement by genes, and the loss."""

from collections.abc import Callable, Sequence
from itertools import product
from typing import TypeAlias

import numpy as np
import torch
from scvi.module.base import BaseModuleClass, LossOutput
from torch import Tensor, nn

from .encoders import CellEncoder, GeneEncoder, NeighborhoodEncoder, unit_length
from .losses import cross_view_loss, label_loss, view_losses
from .sparse import symmetric_product

#: Arrays by name.
Tensors: TypeAlias = dict[str, Tensor]


class SCRCLModule(BaseModuleClass):
    r"""The network of scRCL.

    A minibatch is a graph: a dictionary with the cell ``features`` ``(n, d)``, the binary ``adjacency`` ``(n, n)`` of its
    cells, and the ``propagation`` matrix ``(n, n)`` of the graph convolutions, both sparse CSR; the ``propagated``
    features ``(n, d)``, the product of the two; and optionally the ``labels`` ``(n,)`` by number, -1 for none.

    Each modality has two branches, which all use the same graph. Arrays have the columns of all ``M`` modalities side by
    side; usually there is one.

    Parameters
    ----------
    gene_profiles
        ``(G, d_g)`` features of the selected genes, propagated over the gene graph.
    n_input
        Number of cell features of each modality, ``d`` in total.
    n_hidden, n_refined, temperature, dropout_rate
        As in :class:`scrcl.SCRCL`.
    modality_shares
        Weight of each modality in the loss; their sum is 1.
    """

    def __init__(
        self,
        gene_profiles: np.ndarray,
        n_input: int | Sequence[int],
        n_hidden: int,
        n_refined: int,
        temperature: float,
        dropout_rate: float,
        modality_shares: Sequence[float] = (1.0,),
    ) -> None:
        super().__init__()
        n_genes, n_gene_features = gene_profiles.shape
        self.temperature = temperature
        self.modality_shares = list(modality_shares)
        self.n_inputs = [n_input] if isinstance(n_input, int) else list(n_input)
        first, *others = self.n_inputs
        # These attributes name the parameters in saved models.
        self.cell_encoder = CellEncoder(first, n_hidden)
        self.neighborhood_encoder = NeighborhoodEncoder(first, n_hidden, dropout_rate)
        self.gene_encoder = GeneEncoder(n_gene_features, n_refined)
        self.to_genes = nn.Linear(n_hidden, n_genes)
        self.dropout = nn.Dropout(dropout_rate)
        self.other_cell_encoders = nn.ModuleList(CellEncoder(number, n_hidden) for number in others)
        self.other_neighborhood_encoders = nn.ModuleList(
            NeighborhoodEncoder(number, n_hidden, dropout_rate) for number in others
        )
        self.register_buffer("gene_profiles", torch.from_numpy(gene_profiles), persistent=False)
        #: Number of times that the weights have changed.
        self.weights_version = 0
        self.register_load_state_dict_post_hook(_count_loading)

    def weights_changed(self) -> None:
        """Report that the weights have changed, so that results of the former ones are not used any more.

        Training and loading do so; call it after changing weights by hand.
        """
        self.weights_version += 1

    @property
    def n_modalities(self) -> int:
        """Number of modalities ``M``."""
        return len(self.n_inputs)

    @property
    def _cell_encoders(self) -> list[CellEncoder]:
        return [self.cell_encoder, *self.other_cell_encoders]

    @property
    def _neighborhood_encoders(self) -> list[NeighborhoodEncoder]:
        return [self.neighborhood_encoder, *self.other_neighborhood_encoders]

    def _get_inference_input(self, tensors: Tensors, **kwargs: object) -> Tensors:
        return {name: tensors[name] for name in ("features", "propagated", "propagation")}

    def inference(self, features: Tensor, propagated: Tensor, propagation: Tensor) -> Tensors:
        """Encode the cells, from their features and these propagated over the graph.

        Returns
        -------
        The unnormalised branch outputs ``hidden_1``, ``hidden_2`` and their L2-normalised rows ``embedding_1``,
        ``embedding_2``, each ``(n, M h)``.
        """
        return self.views(features, symmetric_product(propagation, self.convolve(propagated)))

    def convolve(self, propagated: Tensor) -> Tensor:
        """The first graph convolution ``(n, M h)``, of features ``(n, d)`` propagated over the graph."""
        parts = zip(self._neighborhood_encoders, propagated.split(self.n_inputs, 1), strict=True)
        return _side_by_side([encoder.first(part) for encoder, part in parts])

    def views(self, features: Tensor, propagated: Tensor) -> Tensors:
        """The outputs of :meth:`inference`, from features ``(n, d)`` and the propagated output ``(n, M h)`` of :meth:`convolve`."""
        cells = zip(self._cell_encoders, features.split(self.n_inputs, 1), strict=True)
        neighborhoods = zip(self._neighborhood_encoders, self.by_modality(propagated), strict=True)
        hidden_1 = [encoder(x) for encoder, x in cells]
        hidden_2 = [encoder.second(x) for encoder, x in neighborhoods]
        return {
            "hidden_1": _side_by_side(hidden_1),
            "hidden_2": _side_by_side(hidden_2),
            "embedding_1": _side_by_side([unit_length(hidden) for hidden in hidden_1]),
            "embedding_2": _side_by_side([unit_length(hidden) for hidden in hidden_2]),
        }

    def by_modality(self, values: Tensor) -> tuple[Tensor, ...]:
        """The columns of each modality, as separate tensors."""
        # The gradient of a chunk is a copy of all of them.
        return (values,) if self.n_modalities == 1 else values.chunk(self.n_modalities, 1)

    def _get_generative_input(self, tensors: Tensors, inference_outputs: Tensors, **kwargs: object) -> Tensors:
        return {"hidden_1": inference_outputs["hidden_1"], "hidden_2": inference_outputs["hidden_2"]}

    def generative(self, hidden_1: Tensor, hidden_2: Tensor) -> Tensors:
        """Refine the views by cell-gene associations.

        Returns
        -------
        ``genes`` ``(G, c)``, the gene embeddings, and ``refined_1``, ``refined_2`` ``(n, M c)``, the refined views with
        L2-normalised rows. The map to the genes is the same for all modalities.
        """
        genes = self.gene_encoder(self.gene_profiles)
        # (H W + b) G = H (W G) + b G avoids the (n, n_genes) matrix.
        weight, bias = self.to_genes.weight.T @ genes, self.to_genes.bias @ genes
        refined_1, refined_2 = (
            [unit_length(x @ weight + bias) for x in self.by_modality(self.dropout(hidden))]
            for hidden in (hidden_1, hidden_2)
        )
        return {"genes": genes, "refined_1": _side_by_side(refined_1), "refined_2": _side_by_side(refined_2)}

    def loss(
        self,
        tensors: Tensors,
        inference_outputs: Tensors,
        generative_outputs: Tensors,
        neighborhood_weight: float = 100.0,
        cross_view_weight: float = 1.0,
        alignment_weight: float = 1.0,
        labels_weight: float = 10.0,
    ) -> LossOutput:
        r"""The total loss: the three terms of Peng et al., AAAI 2026, and a contrast of labels.

        :math:`L = \lambda_0 L_\text{align} + \lambda_1 L_\text{nbr} + \lambda_2 L_\text{cross}`, and
        :math:`+ \lambda_3 L_\text{lab}` with labels.

        With several modalities, each term is a mean over all pairs of a cell branch and a neighbourhood branch, of the
        same modality or not, weighted by the product of their shares.

        ``tensors`` are the minibatch; the outputs are of :meth:`inference` and :meth:`generative`. The weights
        :math:`\lambda_0` to :math:`\lambda_3` are ``alignment_weight``, ``neighborhood_weight``, ``cross_view_weight`` and
        ``labels_weight``.
        """
        adjacency = tensors["adjacency"]
        views_1, views_2 = (self.by_modality(inference_outputs[name]) for name in ("embedding_1", "embedding_2"))
        refined_1, refined_2 = (self.by_modality(generative_outputs[name]) for name in ("refined_1", "refined_2"))
        alignment, neighborhood = self._over_pairs(
            lambda a, b: torch.stack(view_losses(a, b, adjacency, self.temperature)), views_1, views_2
        )
        cross_view = self._over_pairs(lambda a, b: cross_view_loss(a, b, adjacency), refined_1, refined_2)
        total = alignment_weight * alignment + neighborhood_weight * neighborhood + cross_view_weight * cross_view
        terms = {"alignment_loss": alignment, "neighborhood_loss": neighborhood, "cross_view_loss": cross_view}
        labels = tensors.get("labels")
        if labels is not None:
            terms["label_loss"] = self._over_pairs(lambda a, b: label_loss(a, b, labels), views_1, views_2)
            total = total + labels_weight * terms["label_loss"]
        return LossOutput(
            loss=total,
            n_obs_minibatch=len(tensors["features"]),
            extra_metrics={name: term.detach() for name, term in terms.items()},
        )

    def _over_pairs(
        self, loss: Callable[[Tensor, Tensor], Tensor], views_1: Sequence[Tensor], views_2: Sequence[Tensor]
    ) -> Tensor:
        """Mean of a loss over all pairs of a first and a second view, weighted by the product of the shares of their modalities."""
        shares = self.modality_shares
        pairs = product(zip(shares, views_1, strict=True), zip(shares, views_2, strict=True))
        terms = [share_1 * share_2 * loss(view_1, view_2) for (share_1, view_1), (share_2, view_2) in pairs]
        return torch.stack(terms).sum(0)

    def sample(self, *args: object, **kwargs: object) -> None:
        """Not available, as the model has no likelihood of counts."""
        raise NotImplementedError("SCRCL is not a generative model and cannot sample counts.")


def _side_by_side(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), 1)


def _count_loading(module: SCRCLModule, _: object) -> None:
    module.weights_changed()
