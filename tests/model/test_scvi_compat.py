"""Calls that users of scvi-tools make by habit are taken or refused with the mend."""

from types import SimpleNamespace
from typing import Any

import mudata
import numpy as np
import pytest
import scvi
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.plugins.precision import DoublePrecision
from scvi.train import TrainerConfig, TrainingPlanConfig

import scrcl
from scrcl.utils.errors import ScrclValueError

from ..helpers import build, simulate
from ..saved.make_golden import several

QUIET: dict[str, Any] = {"accelerator": "cpu", "enable_progress_bar": False}


class TestTraining:
    def test_what_means_the_same_is_taken(self, adata):
        plain, habitual = build(adata, epochs=1), build(adata.copy(), epochs=1)
        for model in (plain, habitual):
            scvi.settings.seed = 1
            options: dict[str, Any] = {"max_epochs": 2, "plan_kwargs": {"lr": 1e-3}}
            if model is habitual:
                options = {"trainer_config": {"gradient_clip_val": 1e9}, "plan_config": {"lr": 1.0}, **options}
                options |= {"train_size": 1.0, "validation_size": 0, "shuffle_set_split": False}
                options |= {"load_sparse_tensor": True, "datasplitter_kwargs": {}, "datamodule": None}
            model.train(**options, **QUIET)
        np.testing.assert_allclose(
            habitual.get_latent_representation(), plain.get_latent_representation(), rtol=1e-4, atol=1e-5
        )

    def test_configurations_of_scvi_tools(self, adata):
        model = build(adata, epochs=1)
        model.train(1, plan_config=TrainingPlanConfig(lr=1e-9), trainer_config=TrainerConfig(), **QUIET)
        assert model.trainer.optimizers[0].param_groups[0]["lr"] == 1e-9

    def test_callback_of_autotune(self, trained):
        lightning = pytest.importorskip(
            "ray.tune.integration.pytorch_lightning", reason="scvi-tools[autotune] brings ray"
        )
        callback = lightning.TuneReportCheckpointCallback(["validation_loss"], on="validation_end")
        with pytest.raises(ValueError, match="'validation_loss' is not recorded"):
            trained.train(1, callbacks=[callback])

    def test_setup_is_shown(self, trained, capsys):
        trained.view_anndata_setup()
        assert "SCRCL.setup_anndata" in capsys.readouterr().out

    def test_order_of_the_arguments(self, trained):
        with pytest.raises(ValueError, match="train_size=0.9 would hold cells out"):
            trained.train(1, "cpu", 1, 0.9)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"train_size": 0.9}, "train_size=0.9 would hold cells out"),
            ({"validation_size": 0.1}, "validation_size=0.1 would hold cells out"),
            ({"datasplitter_kwargs": {"drop_last": True}}, "no cells are held out.*batch_size"),
            ({"datamodule": object()}, "datamodule cannot be used.*graph"),
            ({"use_gpu": False}, "use_gpu=False is not an argument of `train`.*`accelerator=.gpu.`"),
            ({"patience": 3}, "Did you mean `early_stopping_patience`"),
            ({"zzz": 3}, "and the arguments of scvi.train.Trainer"),
            ({"precision": 64}, "precision=64 is not supported"),
            ({"precision": "bf16-mixed"}, "precision='bf16-mixed' is not supported"),
            ({"trainer_config": {"precision": "16-true"}}, "precision='16-true' is not supported"),
            ({"plugins": [DoublePrecision()]}, "precision='64-true' is not supported"),
            ({"plan_config": "fast"}, "plan_config='fast' is not valid"),
            ({"trainer_config": 3}, "trainer_config=3 is not valid"),
            ({"plan_config": {"learning_rate": 1}}, "plan_kwargs has unknown options: learning_rate"),
            ({"callbacks": [EarlyStopping("validation_loss")]}, "'validation_loss' is not recorded.*'train_loss'"),
            # as scvi.autotune passes it with metrics="validation_loss"
            ({"callbacks": [SimpleNamespace(_metrics=["validation_loss"])]}, "run_autotune.*metrics='train_loss'"),
            (
                {"plan_kwargs": {"reduce_lr_on_plateau": True, "lr_scheduler_metric": "elbo_validation"}},
                "lr_scheduler_metric",
            ),
        ],
    )
    def test_what_cannot_be_done_is_refused(self, trained, options, message):
        before = trained.module.state_dict()["cell_encoder.linear.weight"].clone()
        with pytest.raises((ValueError, TypeError), match=message):
            trained.train(1, **options)
        np.testing.assert_array_equal(trained.module.state_dict()["cell_encoder.linear.weight"], before)

    def test_settings_without_effect_are_named(self, adata):
        model = build(adata, epochs=1)
        try:
            scvi.settings.batch_size, scvi.settings.dl_num_workers = 64, 2
            with pytest.warns(UserWarning, match="Without effect.*batch_size=64.*dl_num_workers=2"):
                model.train(1, **QUIET)
        finally:
            scvi.settings.batch_size, scvi.settings.dl_num_workers = 128, 0


class TestRepresentation:
    def test_batch_size_changes_nothing(self, trained):
        new = simulate(23, seed=4)
        for data, indices in ((None, None), (new, None), (new, [5, 3, 3]), (new, [])):
            expected = trained.get_latent_representation(data, indices)
            found = trained.get_latent_representation(data, indices, batch_size=7)
            np.testing.assert_allclose(found, expected, atol=1e-6)

    def test_a_chunk_passes_the_network_at_a_time(self, trained, monkeypatch):
        sizes, views = [], trained.module.views

        def counted(features, propagated):
            sizes.append(len(features))
            return views(features, propagated)

        trained.get_latent_representation()
        monkeypatch.setattr(trained.module, "views", counted)
        trained.get_latent_representation(simulate(23, seed=4), batch_size=10)
        assert sizes == [10, 10, 3]

    def test_the_mean_is_what_there_is(self, trained):
        expected = trained.get_latent_representation()
        np.testing.assert_array_equal(
            trained.get_latent_representation(None, None, True, 10, None, False, None), expected
        )

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"give_mean": False}, "give_mean=False asks for a distribution"),
            ({"return_dist": True}, "return_dist=True asks for a distribution"),
            ({"dataloader": []}, "dataloader cannot be used.*batch_size"),
            ({"batch_size": 0}, "batch_size=.* is not valid"),
        ],
    )
    def test_distributions_are_refused(self, trained, options, message):
        with pytest.raises(ValueError, match=message):
            trained.get_latent_representation(**options)

    def test_a_name_in_the_place_of_give_mean(self, trained):
        with pytest.raises(ValueError, match="representation='refined'"):
            trained.get_latent_representation(None, None, "refined")


class TestSetup:
    @pytest.mark.parametrize(
        ("given", "meant"),
        [
            ({"rna": "rna", "protein": "prot"}, {"rna": "rna", "prot": "protein"}),
            ({"protein": "prot", "rna": "rna"}, {"prot": "protein", "rna": "rna"}),
        ],
    )
    def test_name_and_kind_swapped(self, given, meant):
        with pytest.raises(ValueError, match="Names come first") as refused:
            scrcl.SCRCL.setup_mudata(several(), given)
        assert repr(meant) in str(refused.value)

    def test_names_that_are_kinds_are_no_swap(self):
        data = several()
        twins = mudata.MuData({"protein": data["rna"], "rna": data["prot"]})
        scrcl.SCRCL.setup_mudata(twins, {"protein": "rna", "rna": "protein"})
        with pytest.raises(KeyError, match="'atac' is not in mdata.mod"):
            scrcl.SCRCL.setup_mudata(data, {"rna": "rna", "atac": "atac"})

    def test_spatialdata(self):
        with pytest.raises(TypeError, match=r"scrcl\.from_spatialdata"):
            scrcl.SCRCL.setup_anndata(SimpleNamespace(tables={}))

    @pytest.mark.parametrize(
        ("option", "message"),
        [
            ({"size_factor_key": "size"}, "size_factor_key='size' is not an argument"),
            ({"protein_expression_obsm_key": "adt"}, "protein_expression_obsm_key='adt' is not an argument"),
        ],
    )
    def test_what_other_models_register(self, adata, option, message):
        with pytest.raises(TypeError, match=message):
            scrcl.SCRCL.setup_anndata(adata, **option)
        with pytest.raises(TypeError, match=message):
            scrcl.SCRCL.setup_mudata(several(), {"rna": "rna", "prot": "protein"}, **option)


def test_apple_gpus_are_refused_with_the_reason(trained, tmp_path):
    trained.save(tmp_path / "model")
    with pytest.raises(ScrclValueError, match="accelerator='mps' is not supported: on Apple GPUs") as error:
        scrcl.SCRCL.load(tmp_path / "model", adata=False, accelerator="mps")
    assert error.value.as_command("cells.h5ad").endswith("Pass --device cpu.")
