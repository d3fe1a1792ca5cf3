from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from scrcl.nn.losses import cross_view_loss, label_loss, view_losses
from scrcl.nn.minibatches import graph_minibatch
from scrcl.nn.module import SCRCLModule


def test_loss_is_the_mean_over_pairs():
    """Of two modalities, against the losses pair by pair."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    profiles = rng.normal(size=(9, 4)).astype(np.float32)
    module = SCRCLModule(profiles, [3, 5], 6, 4, temperature=1.0, dropout_rate=0.0, modality_shares=[0.7, 0.3])
    features = rng.normal(size=(20, 8)).astype(np.float32)
    graph = sp.random_array((20, 20), density=0.2, rng=rng)
    adjacency = sp.csr_array(((graph + graph.T) != 0).astype(np.float32))
    adjacency.setdiag(0)
    adjacency.eliminate_zeros()
    batch = graph_minibatch(features, adjacency)
    views, refined, found = module(batch)
    a, p = batch["adjacency"], batch["propagation"]
    own = torch.from_numpy(features).split([3, 5], 1)
    first = [module.cell_encoder(own[0]), module.other_cell_encoders[0](own[1])]
    encoders: list[Any] = [module.neighborhood_encoder, module.other_neighborhood_encoders[0]]
    second = [encoder.second(p @ encoder.first(p @ x)) for encoder, x in zip(encoders, own, strict=True)]
    torch.testing.assert_close(views["hidden_1"], torch.cat(first, 1))
    torch.testing.assert_close(views["hidden_2"], torch.cat(second, 1))
    unit = torch.nn.functional.normalize
    first, second = [unit(x) for x in first], [unit(x) for x in second]
    z1, z2 = refined["refined_1"].split(4, 1), refined["refined_2"].split(4, 1)
    total = torch.zeros(())
    for m, share in enumerate((0.7, 0.3)):
        for other, other_share in enumerate((0.7, 0.3)):
            alignment, neighborhood = view_losses(first[m], second[other], a, 1.0)
            pair = alignment + 100 * neighborhood + cross_view_loss(z1[m], z2[other], a)
            total += share * other_share * pair
    torch.testing.assert_close(found.loss, total)
    labels = np.arange(20) % 4 - 1
    with_labels = module.loss(graph_minibatch(features, adjacency, labels), views, refined, labels_weight=0.3)
    contrast = torch.zeros(())
    for m, share in enumerate((0.7, 0.3)):
        for other, other_share in enumerate((0.7, 0.3)):
            contrast += share * other_share * label_loss(first[m], second[other], torch.from_numpy(labels))
    torch.testing.assert_close(with_labels.loss, total + 0.3 * contrast)
    assert "label_loss" in with_labels.extra_metrics
    assert "label_loss" not in found.extra_metrics


def test_one_modality_is_saved_as_it_always_was():
    module = SCRCLModule(np.ones((9, 4), np.float32), 3, 6, 4, temperature=1.0, dropout_rate=0.0)
    assert not [name for name in module.state_dict() if "other" in name]
