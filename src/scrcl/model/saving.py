"""Saving and loading."""

import logging
import os
import tempfile
import warnings
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np

from scrcl.genes.associations import GeneMap

from .base import Data, check_type
from .markers import MarkersMixin

logger = logging.getLogger("scvi.scrcl")


class SavingMixin(MarkersMixin):
    """Files of :class:`scrcl.SCRCL`."""

    #: Where the genes lie among the cells, while the model is saved or loaded.
    gene_map_: dict[str, np.ndarray] | None

    def save(
        self,
        dir_path: str | os.PathLike[str],
        prefix: str | None = None,
        overwrite: bool = False,
        save_anndata: bool = False,
        **kwargs: Any,
    ) -> None:
        """Save the model. All files are written before any takes its name, so that a failure leaves what was there.

        Parameters
        ----------
        dir_path
            Folder to write, made if need be.
        prefix
            Prefix of the file names.
        overwrite
            Replace what the folder holds.
        save_anndata
            Save the data too.
        **kwargs
            Passed to :meth:`scvi.model.base.BaseModelClass.save`.

        Raises
        ------
        ValueError
            If the folder exists and ``overwrite`` is not set.
        OSError
            If it cannot be written.
        """
        folder = Path(dir_path)
        if folder.exists() and not overwrite:
            raise ValueError(f"dir_path={str(folder)!r} already exists. Name another folder, or pass `overwrite=True`.")
        self.gene_map_ = self._gene_map_to_save()
        try:
            self._save_whole(folder, prefix, save_anndata, kwargs)
        finally:
            del self.gene_map_

    def _save_whole(self, folder: Path, prefix: str | None, save_anndata: bool, kwargs: dict[str, Any]) -> None:
        """Write all files beside the folder, and move them there once they are whole."""
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as unfinished:
            try:
                super().save(unfinished, prefix, overwrite=True, save_anndata=save_anndata, **kwargs)
            except (OSError, RuntimeError) as error:
                raise OSError(
                    f"The model cannot be saved to dir_path={str(folder)!r}: {error}. Free space there, or name another folder."
                ) from error
            folder.mkdir(exist_ok=True)
            for file in Path(unfinished).iterdir():
                file.replace(folder / file.name)

    def _gene_map_to_save(self) -> dict[str, np.ndarray] | None:
        """Where the genes lie among the cells, which needs the counts of all cells; ``None`` where these are not at hand."""
        if not self.is_trained_ or self.refinement_trained_ is False:
            return None
        try:
            return self._fitted_gene_map().to_dict()
        except (ValueError, KeyError) as error:
            logger.info(f"The model is saved without the map of its genes: {error}")
            return None

    @classmethod
    def load(
        cls,
        dir_path: str | os.PathLike[str],
        adata: Data | Literal[False] | None = None,
        accelerator: str = "auto",
        device: int | str = "auto",
        prefix: str | None = None,
        **kwargs: Any,
    ) -> Self:
        """Load a saved model.

        Parameters
        ----------
        dir_path
            Folder that :meth:`save` wrote.
        adata
            Data to use with the model: those it was trained on or others with the same genes, matched by name. By
            default the data saved with the model, if any; ``False`` for none. Training goes on with the cells that
            the model was built on, whatever the data.
        accelerator, device
            Where to put the model, whatever it was trained on.
        prefix
            Prefix of the saved file names.
        **kwargs
            Passed to :meth:`scvi.model.base.BaseModelClass.load`.

        Raises
        ------
        ValueError
            If the folder holds no model, a damaged one, or one of another class.
        """
        path = os.path.join(dir_path, f"{prefix or ''}model.pt")
        if "backup_url" not in kwargs:
            if not os.path.isfile(path):
                raise ValueError(f"dir_path={os.fspath(dir_path)!r} holds no saved model: there is no file {path!r}.")
            try:
                registry = cls.load_registry(dir_path, prefix=prefix)
            except Exception as error:
                raise ValueError(
                    f"The model saved in dir_path={os.fspath(dir_path)!r} is damaged and cannot be read. Save it again."
                ) from error
            saved_by = registry.get("model_name")
            if saved_by != cls.__name__:
                raise ValueError(
                    f"{path!r} holds a model of class {saved_by}, not {cls.__name__}. Load it with that class."
                )
            check_type(adata or None, registry.get("setup_method_name") == "setup_mudata")
        with warnings.catch_warnings():
            # Genes are matched by name, so that their order does not matter.
            warnings.filterwarnings("ignore", message="`var_names` for the loaded `model`", category=UserWarning)
            model = super().load(dir_path, adata=adata, accelerator=accelerator, device=device, prefix=prefix, **kwargs)
        gene_map = vars(model).pop("gene_map_", None)
        if gene_map is not None:
            model._results.gene_map = GeneMap(**gene_map)
        return model
