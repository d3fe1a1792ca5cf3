import numpy as np
import scipy.sparse as sp

from scrcl.data.sources import anndata_sources
from scrcl.reference.cells import Cells

from ..helpers import simulate, slices_of


def test_batches_positions_and_graph_have_a_part_in_the_fingerprint():
    adata = simulate(20)
    start = adata.obs_names, anndata_sources(adata, None, None)
    points = np.random.default_rng(0).random((20, 2))
    batches, slices = np.repeat(["a", "b"], 10), slices_of(points)
    cells = [
        Cells(*start),
        Cells(*start, batches),
        Cells(*start, batches[::-1]),
        Cells(*start, batches, conditions=batches),
        Cells(*start, batches, conditions=batches[::-1]),
        Cells(*start, None, slices),
        Cells(*start, None, slices_of(points + 1)),
        Cells(*start, None, slices_of(points, batches)),
        Cells(*start, None, slices, sp.csr_array(np.ones((20, 20)))),
    ]
    assert len({each.fingerprint for each in cells}) == len(cells)
    assert Cells(*start, batches).fingerprint == Cells(*start, batches.copy()).fingerprint
