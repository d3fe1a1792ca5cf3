import numpy as np
import pytest

from scrcl.data.remedies import find_counts

from ..helpers import simulate


@pytest.mark.parametrize(
    ("layers", "python", "command"),
    [
        (["most", "half"], "`SCRCL.setup_anndata(adata, layer='most')`", "`--layer most`"),
        (["half", "most"], "`SCRCL.setup_anndata(adata, layer='most')`", "`--layer most`"),
        (["logarithms", "zeros", "ones", "half"], "`SCRCL.setup_anndata(adata, layer='half')`", "`--layer half`"),
        (["ones", "raw"], "`adata = adata.raw.to_adata()`", "`--layer raw`"),
        (["ones", "half", "raw"], "`SCRCL.setup_anndata(adata, layer='half')`", "`--layer half`"),
    ],
)
def test_which_counts_are_named(layers, python, command):
    """The layer with most counts, `raw` after layers, and zeros and ones last."""
    adata = simulate(20, 24)
    counts = adata.X.toarray() * 2
    kept = {
        "most": counts,
        "half": counts // 2,
        "ones": counts > 0,
        "zeros": counts * 0,
        "logarithms": np.log1p(counts),
    }
    if "raw" in layers:
        adata.raw = adata.copy()
    adata.X = np.log1p(counts)
    for name in layers:
        if name in kept:
            adata.layers[name] = kept[name].astype(np.float32)
    found = find_counts(adata, None, "adata", new=False)
    assert python in found.python
    assert command in found.command
