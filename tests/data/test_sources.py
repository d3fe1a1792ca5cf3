import re

import mudata
import numpy as np
import pytest

import scrcl

from ..saved.make_golden import several


class TestTotalsOfMuData:
    @pytest.fixture(scope="class")
    def model(self):
        mdata = several()
        scrcl.SCRCL.setup_mudata(mdata, modalities={"rna": "rna", "prot": "protein"})
        model = scrcl.SCRCL(mdata, n_hidden=8, n_components=5, n_top_genes=40)
        model.train(1, accelerator="cpu", enable_progress_bar=False)
        return model

    def cut(self, genes) -> mudata.MuData:
        mdata = several(3)
        return mudata.MuData({"rna": mdata["rna"][:, genes].copy(), "prot": mdata["prot"].copy()})

    def test_data_cut_to_the_genes_kept_are_refused(self, model):
        kept = model._reference.modalities["rna"].variables
        with pytest.raises(
            ValueError, match=r"80 of the 120 genes that the model reads are missing from mdata\['rna'\]"
        ):
            model.get_latent_representation(self.cut(kept))

    def test_genes_that_only_totals_need_are_named(self, model):
        names = model._reference.modalities["rna"]
        spare = names.names.difference(names.variables)[:3]
        whole = model.get_latent_representation(self.cut(names.names))
        message = f"3 of the 120 variables that the total of a cell of 'rna' is taken over .*{re.escape(spare[0])}"
        with pytest.warns(UserWarning, match=message):
            found = model.get_latent_representation(self.cut(names.names.difference(spare)))
        assert np.linalg.norm(found - whole) < 0.2 * np.linalg.norm(whole)
