"""Inference in chunks gives what one pass over the whole graph gives."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from scrcl.graph.adjacency import query_weights
from scrcl.nn.inference import REPRESENTATIONS, Encoder, View, encode
from scrcl.nn.sparse import to_torch
from scrcl.reference.cells import Cells

from ..helpers import simulate


class TestInference:
    @staticmethod
    def whole_graph(module, features, propagation):
        with torch.inference_mode():
            module.eval()
            cells, graph = torch.from_numpy(features), to_torch(propagation)
            views = module.inference(cells, graph @ cells, graph)
            refined = module.generative(views["hidden_1"], views["hidden_2"])
        return {
            ("aligned", None): torch.cat([views["embedding_1"], views["embedding_2"]], 1).numpy(),
            ("refined", None): torch.cat([refined["refined_1"], refined["refined_2"]], 1).numpy(),
        }

    @pytest.mark.parametrize("chunk", [1, 37, 150])
    def test_chunks_give_what_the_whole_graph_gives(self, trained, chunk):
        reference = trained._reference
        graph = reference.features, reference.propagation, reference.weights
        aligned, refined = (encode(trained.module, *graph, wanted, None, chunk) for wanted in REPRESENTATIONS)
        assert not set(aligned.views) & set(refined.views)
        assert aligned.lengths is not None
        assert aligned.lengths.shape == (150, 2)
        assert refined.lengths is None
        found = aligned.views | refined.views
        expected = self.whole_graph(trained.module, reference.features, reference.propagation[:])
        for name, latent in expected.items():
            np.testing.assert_allclose(found[name], latent, atol=1e-5)

    @pytest.mark.parametrize("representation", REPRESENTATIONS)
    def test_some_cells_get_what_they_get_among_all(self, trained, representation):
        reference = trained._reference
        graph = reference.features, reference.propagation, reference.weights
        cells = np.arange(149, 0, -2)
        every, some = (encode(trained.module, *graph, representation, which, 37) for which in (None, cells))
        assert set(some.views) == set(every.views)
        for view, latent in every.views.items():
            np.testing.assert_allclose(some.views[view], latent[cells], atol=1e-6)

    @pytest.mark.parametrize("chunk", [1, 37])
    def test_new_cells_in_chunks(self, trained, chunk):
        """As rows of the graph in which new cells receive and send nothing."""
        reference = trained._reference
        new = simulate(60, seed=9)
        placement = reference.place(Cells(new.obs_names, trained._sources(new)))
        assert (placement.reference_index < 0).all()
        encoder = Encoder(
            trained.module, reference.features, reference.propagation, reference.weights, reference.adjacency
        )
        found: dict[View, np.ndarray] = {}
        for representation in REPRESENTATIONS:
            found |= encoder(placement, representation, chunk).views
        received, own = query_weights(reference.adjacency, placement.neighbors)
        joined = sp.csr_array(
            sp.block_array([[reference.propagation[:], None], [received, own * sp.eye_array(60, dtype=np.float32)]])
        )
        features = np.concatenate([reference.features, placement.features])
        expected = self.whole_graph(trained.module, features, joined)
        for name, latent in expected.items():
            np.testing.assert_allclose(found[name], latent[150:], atol=1e-5)
