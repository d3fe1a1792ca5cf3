"""Saving and loading: files hold tensors, numbers, text and plain containers, so that reading one runs no code."""

import logging
import os
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from platform import python_version
from typing import Any, Literal, Self

import anndata
import mudata
import numpy as np
import pandas as pd
import torch
from mudata import MuData
from scvi import settings

from scrcl.utils import files
from scrcl.utils.errors import ScrclValueError, ScrclWarning
from scrcl.utils.files import State
from scrcl.utils.public import unknown_argument

from .base import Data, SCRCLBase, check_type
from .expression import fit_gene_maps
from .scvi_compat import GRAPH_NEEDED, find_device

logger = logging.getLogger("scvi.scrcl")

#: Names of the files, and of what they hold, as scvi-tools has them.
MODEL_FILE, ADATA_FILE, MDATA_FILE = "model.pt", "adata.h5ad", "mdata.h5mu"
WEIGHTS, NAMES, ATTRIBUTES, VERSIONS = "model_state_dict", "var_names", "attr_dict", "versions"
#: What the data may be written with.
WRITE_OPTIONS = ("compression", "compression_opts", "convert_strings_to_categoricals", "as_dense")
#: Packages whose versions are noted.
PACKAGES = ("scrcl", "scvi-tools", "torch", "anndata", "mudata", "numpy", "pandas")


class SavingMixin(SCRCLBase):
    """Files of :class:`scrcl.SCRCL`."""

    def save(
        self,
        dir_path: str | os.PathLike[str],
        prefix: str | None = None,
        overwrite: bool = False,
        save_anndata: bool = False,
        save_kwargs: dict[str, Any] | None = None,
        **anndata_write_kwargs: object,
    ) -> None:
        """Save the model. All files are written before any takes its name, so that a failure leaves what was there.

        Parameters
        ----------
        dir_path
            Folder to write, made if need be.
        prefix
            Prefix of the file names.
        overwrite
            Replace the model that the folder holds, and the data that were saved with it.
        save_anndata
            Save the data too.
        save_kwargs
            Passed to :func:`torch.save`.
        **anndata_write_kwargs
            Passed to :meth:`anndata.AnnData.write_h5ad` or :meth:`mudata.MuData.write`.

        Raises
        ------
        ValueError
            If the folder exists and ``overwrite`` is not set, or there are no data to save, or no file can hold them.
        OSError
            If it cannot be written.

        Examples
        --------
        >>> model.save("model/")
        >>> model.save("with_data/", save_anndata=True)
        """
        folder = files.as_path(dir_path, "dir_path")
        if folder.exists() and not folder.is_dir():
            raise ScrclValueError(f"dir_path={str(folder)!r} is a file.", "Name a folder.")
        if folder.exists() and not overwrite:
            raise ScrclValueError(
                f"dir_path={str(folder)!r} exists already.", "Name another folder, or pass `overwrite=True`."
            )
        if prefix and os.path.basename(str(prefix)) != prefix:
            raise ScrclValueError(
                f"prefix={prefix!r} is not the beginning of the name of a file.", "Name folders in `dir_path`."
            )
        if save_anndata and self.adata is None:
            raise ScrclValueError(
                "save_anndata=True has nothing to save, as the model was loaded without data.", "Load it with its data."
            )
        arguments = ("dir_path", "prefix", "overwrite", "save_anndata", "save_kwargs", *WRITE_OPTIONS)
        for name, value in anndata_write_kwargs.items():
            if name not in WRITE_OPTIONS:
                raise unknown_argument(name, value, arguments, "save")
        content = self._content()
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as unfinished:
                start = os.path.join(unfinished, prefix or "")
                torch.save(content, start + MODEL_FILE, **(save_kwargs or {}))
                if save_anndata:
                    _write(self.adata, start, anndata_write_kwargs)
                folder.mkdir(exist_ok=True)
                for name in (ADATA_FILE, MDATA_FILE):  # data of an earlier model
                    (folder / f"{prefix or ''}{name}").unlink(missing_ok=True)
                for file in Path(unfinished).iterdir():
                    file.replace(folder / file.name)
        except (OSError, RuntimeError) as error:
            cause = str(getattr(error, "strerror", None) or error).rstrip(".")
            raise OSError(
                f"The model cannot be saved to dir_path={str(folder)!r}: {cause}. Free space there, or name another folder."
            ) from error

    def _content(self) -> State:
        """All that is saved: what scvi-tools saves, in its form, but plain."""
        attributes = {name: value for name, value in self._get_user_attributes() if name.endswith("_")}
        fit_gene_maps(self)
        attributes |= self._results.to_dict()
        if attributes["history_"] is not None:
            attributes["history_"] = {name: _plain_table(table) for name, table in attributes["history_"].items()}
        return {
            WEIGHTS: self.module.state_dict(),
            NAMES: files.to_plain(self.get_var_names(), NAMES),
            ATTRIBUTES: {name: files.to_plain(value, name) for name, value in attributes.items()},
            VERSIONS: _versions(),
        }

    @classmethod
    def load(
        cls,
        dir_path: str | os.PathLike[str],
        adata: Data | Literal[False] | None = None,
        accelerator: str = "auto",
        device: int | str = "auto",
        prefix: str | None = None,
        backup_url: str | None = None,
        datamodule: None = None,
        allowed_classes_names_list: Sequence[str] | None = None,
    ) -> Self:
        """Load a saved model. No code that the file may hold is run.

        Parameters
        ----------
        dir_path
            Folder that :meth:`save` wrote.
        adata
            Data to use with the model: those it was trained on or others with the same genes, matched by name. By
            default the data saved with the model, if any; ``False`` for none. Training goes on with the cells that
            the model was built on, for any data.
        accelerator, device
            Device of the model, which may differ from the one it was trained on.
        prefix
            Prefix of the saved file names.
        backup_url
            Where the file of the model is downloaded from if it is not in the folder.
        datamodule
            Not used: a model needs the graph of its cells.
        allowed_classes_names_list
            Names of other classes whose models may be loaded.

        Returns
        -------
        The model, with the data if there are any.

        Raises
        ------
        ValueError
            If the folder holds no model, one that cannot be read, one of another class, or a file that holds more than
            numbers, text, arrays and plain containers.
        TypeError
            If ``adata`` is of the wrong class.

        Examples
        --------
        >>> model.save("model/", save_anndata=True)
        >>> again = scrcl.SCRCL.load("model/")

        With other cells, or with none:

        >>> with_new = scrcl.SCRCL.load("model/", adata=new_adata)
        >>> without = scrcl.SCRCL.load("model/", adata=False)
        """
        if datamodule is not None:
            raise ScrclValueError(f"datamodule cannot be used: {GRAPH_NEEDED}", "Pass `adata`.")
        content = _read(dir_path, prefix, backup_url)
        attributes, versions = content[ATTRIBUTES], content[VERSIONS]
        registry, init = attributes.pop("registry_"), attributes.pop("init_params_")
        saved_by, several = registry.get("model_name"), registry.get("setup_method_name") == "setup_mudata"
        if saved_by not in (cls.__name__, *(allowed_classes_names_list or ())):
            raise ScrclValueError(
                f"dir_path={os.fspath(dir_path)!r} holds a model of class {saved_by}, not {cls.__name__}.",
                "Load it with that class.",
                command="Name the folder of a model that scrcl run --save-model wrote.",
            )
        data = _saved_data(dir_path, prefix, several) if adata is None else adata or None
        check_type(data, several)
        if data is not None:
            setup = cls.setup_mudata if several else cls.setup_anndata
            setup(data, source_registry=registry, **registry["setup_args"])
        try:
            results = {name: attributes.pop(name) for name in ("gene_maps_", "certainties_")}
            model = cls(data, registry=registry, **init["non_kwargs"])
            for name, value in attributes.items():
                setattr(model, name, value)
            model.module.load_state_dict(content[WEIGHTS])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise _unreadable(dir_path, error, versions) from error
        model.to_device(find_device(accelerator, device))
        model.module.eval()
        if data is not None:
            model._validate_anndata(data)
        model._results.restore(results)
        return model

    @staticmethod
    def load_registry(dir_path: str | os.PathLike[str], prefix: str | None = None) -> dict[str, Any]:
        """Read how the data of a saved model were registered, without loading it.

        Parameters
        ----------
        dir_path, prefix
            As in :meth:`load`.

        Returns
        -------
        The registry of scvi-tools, with the arguments of the setup in ``"setup_args"``.

        Raises
        ------
        ValueError
            As in :meth:`load`.

        Examples
        --------
        >>> model.save("model/")
        >>> scrcl.SCRCL.load_registry("model/")["model_name"]
        'SCRCL'
        """
        return _read(dir_path, prefix)[ATTRIBUTES]["registry_"]


def _read(dir_path: str | os.PathLike[str], prefix: str | None, backup_url: str | None = None) -> State:
    """What the file of a model holds, with arrays in the place of tensors."""
    folder = files.as_path(dir_path, "dir_path")
    path = folder / f"{prefix or ''}{MODEL_FILE}"
    if folder.is_file():
        raise ScrclValueError(f"dir_path={str(folder)!r} is a file.", f"Name its folder: {str(folder.parent)!r}.")
    if not path.is_file():
        if backup_url is None:
            raise ScrclValueError(
                f"dir_path={str(folder)!r} holds no saved model: there is no file {str(path)!r}.",
                "Name the folder that `model.save` wrote.",
                command="Name the folder that scrcl run --save-model wrote.",
            )
        folder.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(backup_url, str(path))
    try:
        content = files.read(path)
        attributes = files.from_plain(content[ATTRIBUTES])
    except files.UnsafeFileError as error:
        raise ScrclValueError(
            f"dir_path={str(folder)!r} holds a model that is not read, as it could run code: {error}.",
            "A model saved by this package holds numbers, text, arrays and plain containers only: load a model of another class "
            "with that class, and ask the sender of this file for a new one.",
        ) from error
    except Exception as error:
        raise _unreadable(folder, error, {}) from error
    history = attributes.get("history_")
    if history is not None:
        attributes["history_"] = {name: _table(name, table) for name, table in history.items()}
    return {**content, ATTRIBUTES: attributes}


def _saved_data(dir_path: str | os.PathLike[str], prefix: str | None, several: bool) -> Data | None:
    """The data that were saved with a model."""
    path = files.as_path(dir_path, "dir_path") / ((prefix or "") + (MDATA_FILE if several else ADATA_FILE))
    if path.is_file():
        return mudata.read_h5mu(path) if several else anndata.read_h5ad(path)
    warnings.warn(
        ScrclWarning(
            "The model is loaded without data, as none were saved with it and none were passed.",
            "Pass `adata=False` to silence this warning.",
        ),
        stacklevel=settings.warnings_stacklevel,
    )
    return None


def _write(data: Data, start: str, options: Mapping[str, object]) -> None:
    """Write data to a file whose name begins so. Backed data stay with the file that they are read from."""
    several = isinstance(data, MuData)
    if not isinstance(data.obs, pd.DataFrame):  # read lazily, which no file holds
        data = data.to_memory()
    opened = not several and data.isbacked and data.file.is_open
    try:
        with anndata.settings.override(allow_write_nullable_strings=True):
            if several:
                mudata.write_h5mu(start + MDATA_FILE, data, **options)
            else:
                anndata.io.write_h5ad(Path(start + ADATA_FILE), data, **options)
    except (OSError, RuntimeError):
        raise
    except Exception as error:  # anndata raises many kinds
        where = " ".join(getattr(error, "__notes__", []))
        raise ScrclValueError(
            f"save_anndata=True cannot write the data: {' '.join(f'{error}. {where}'.split()).rstrip('.')}.",
            "Convert what is named to numbers or text, or save the model without `save_anndata`.",
        ) from error
    finally:
        if opened and not data.file.is_open:
            data.file.open()


def _plain_table(table: pd.DataFrame) -> State:
    """A column of the history as plain arrays."""
    return {
        "steps": table.index.to_numpy(np.int64),
        "of": table.index.name,
        "values": table.iloc[:, 0].to_numpy(np.float64),
    }


def _table(name: str, saved: State) -> pd.DataFrame:
    """The inverse."""
    index = pd.Index(saved["steps"], name=saved["of"])
    return pd.DataFrame({name: np.asarray(saved["values"], dtype=np.float64)}, index=index)


def _versions() -> dict[str, str]:
    """Versions of Python and of the packages that have a part in a model."""
    return {"Python": python_version(), **{package: version(package) for package in PACKAGES}}


def _unreadable(dir_path: str | os.PathLike[str], error: Exception, saved_by: dict[str, str]) -> ScrclValueError:
    """Why a model cannot be read, and what it was saved by."""
    ours = _versions()
    cause = f"{type(error).__name__}: {' '.join(str(error).split()[:60]).rstrip('.')}"
    differing = [name for name in saved_by if saved_by[name] != ours.get(name)]
    saved = ", ".join(f"{name} {saved_by[name]} (here {ours.get(name, 'none')})" for name in differing)
    remedy = f"It was saved by {saved}: load it with these." if saved else "Copy it again, or save it again."
    return ScrclValueError(f"dir_path={os.fspath(dir_path)!r} cannot be read: {cause}.", remedy)
