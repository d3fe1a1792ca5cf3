"""Inference in chunks gives what one pass over the whole graph gives."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from scrcl.graph.adjacency import query_weights
from scrcl.nn import inference
from scrcl.nn.inference import REPRESENTATIONS, View, encode, encode_new, first_layer
from scrcl.nn.sparse import to_torch

from ..conftest import simulate


def as_it_is(view: View, latent: np.ndarray, features: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return latent


class TestInference:
    @staticmethod
    def whole_graph(module, features, propagation):
        with torch.inference_mode():
            module.eval()
            views = module.inference(torch.from_numpy(features), to_torch(propagation))
            refined = module.generative(views["hidden_1"], views["hidden_2"])
        return {
            ("aligned", None): torch.cat([views["embedding_1"], views["embedding_2"]], 1).numpy(),
            ("refined", None): torch.cat([refined["refined_1"], refined["refined_2"]], 1).numpy(),
        }

    @pytest.mark.parametrize("chunk", [1, 37, 150])
    def test_chunks_give_what_the_whole_graph_gives(self, trained, monkeypatch, chunk):
        monkeypatch.setattr(inference, "CHUNK_CELLS", chunk)
        reference = trained._reference
        graph = reference.features, reference.propagation, reference.weights
        aligned, refined = (encode(trained.module, *graph, [wanted], as_it_is) for wanted in REPRESENTATIONS)
        assert not set(aligned) & set(refined)
        found = aligned | refined
        expected = self.whole_graph(trained.module, reference.features, reference.propagation[:])
        for name, latent in expected.items():
            np.testing.assert_allclose(found[name], latent, atol=1e-5)

    def test_what_is_kept_is_made_of_each_chunk(self, trained, monkeypatch):
        monkeypatch.setattr(inference, "CHUNK_CELLS", 37)
        reference = trained._reference
        graph = reference.features, reference.propagation, reference.weights

        def beside(view: View, latent: np.ndarray, features: np.ndarray, weights: np.ndarray) -> np.ndarray:
            return np.concatenate([latent, features, weights], 1)

        plain, found = (encode(trained.module, *graph, ["aligned"], complete) for complete in (as_it_is, beside))
        for view, latent in plain.items():
            np.testing.assert_array_equal(found[view], beside(view, latent, reference.features, reference.weights))

    def test_some_cells_get_what_they_get_among_all(self, trained, monkeypatch):
        monkeypatch.setattr(inference, "CHUNK_CELLS", 37)
        reference = trained._reference
        graph = reference.features, reference.propagation, reference.weights
        cells = np.arange(149, 0, -2)
        every, some = (encode(trained.module, *graph, REPRESENTATIONS, as_it_is, which) for which in (None, cells))
        assert set(some) == set(every)
        for view, latent in every.items():
            np.testing.assert_allclose(some[view], latent[cells], atol=1e-6)

    @pytest.mark.parametrize("chunk", [1, 37])
    def test_new_cells_in_chunks(self, trained, monkeypatch, chunk):
        """As rows of the graph in which new cells receive and send nothing."""
        monkeypatch.setattr(inference, "CHUNK_CELLS", chunk)
        reference = trained._reference
        features = reference.read(trained._sources(simulate(60, seed=9)))
        received, own = query_weights(reference.adjacency, reference.query_neighbors(features)[0])
        graph = reference.features, first_layer(trained.module, reference.features, reference.propagation)
        found = encode_new(trained.module, features, received, own, np.ones((60, 1), np.float32), *graph, as_it_is)
        joined = sp.csr_array(
            sp.block_array([[reference.propagation[:], None], [received, own * sp.eye_array(60, dtype=np.float32)]])
        )
        expected = self.whole_graph(trained.module, np.concatenate([reference.features, features]), joined)
        for name, latent in expected.items():
            np.testing.assert_allclose(found[name], latent[150:], atol=1e-5)
