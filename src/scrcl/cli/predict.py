"""Clusters of new cells by a saved model, how well they fit, and types learned from labels. Wiring only."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from anndata import AnnData
from anndata.io import read_elem
from mudata import MuData
from rich.console import Console

from scrcl.model.scrcl import SCRCL
from scrcl.utils import keys
from scrcl.utils.errors import ScrclError
from scrcl.utils.files import State
from scrcl.utils.progress import begin
from scrcl.utils.words import counted

from .causes import explained
from .config import PredictConfig
from .errors import OPTIONS, UserError
from .inputs import Input, read
from .options import pairs
from .outputs import count, finish, opened, reserved, write, write_types
from .paths import TABLES, suffix
from .progress import Phases, quiet
from .summary import sizes_table

#: Name of the matrix that is not a layer, for `--layer`.
NO_LAYER = "X"


@dataclass
class Predicted:
    """Results that are reported for new cells."""

    command: str
    model: str
    input: str
    outputs: dict[str, str]
    alpha: float
    cells: int
    clusters: dict[str, int]
    columns: list[str]
    #: Cells that the model was built on, and those unlike any of these; ``None`` in space, where that is not judged.
    known: int | None = None
    outliers: int | None = None
    types: dict[str, int] | None = None
    notes: list[str] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, object]:
        """In plain containers."""
        return vars(self)

    def print(self, console: Console) -> None:
        """As tables."""
        console.print(sizes_table(self.clusters, "cluster"))
        if self.types is not None:
            console.print(sizes_table(self.types, "type, learned from labels"))
        if self.known is not None and self.outliers is not None:
            known = counted(self.known, "cell is one", "cells are some")
            outliers = counted(self.outliers, "cell is an outlier", "cells are outliers")
            console.print(
                f"{known} that the model was built on; {outliers}: unlike these at level {self.alpha:g}.",
                soft_wrap=True,
            )
        columns = ", ".join(f"obs['{name}']" for name in self.columns)
        console.print(f"Written to {self.outputs['output']}: {columns}, obsm['{keys.LATENT_KEY}']", soft_wrap=True)


def predict(config: PredictConfig, phases: Phases) -> Predicted:
    """Load, read, predict, and write.

    Parameters
    ----------
    config
        The options.
    phases
        Where progress is shown.
    """
    with (
        reserved(config.output) as unfinished,
        quiet(phases),
        ExitStack() as files,
    ):
        assert unfinished is not None  # there is always an output
        begin("reading")
        model = SCRCL.load(config.model, adata=False)
        if not model.is_trained_:
            raise UserError(f"The model in {config.model} is not trained.", "Train it before it is saved.")
        found, query = _read(config, model)
        data = files.enter_context(opened(found, config.output, phases))
        columns = _columns(model, query, config.alpha)
        types = probabilities = None
        if model.knows_labels:
            types, probabilities = model.predict(query, alpha=config.alpha), model.predict(query, soft=True)
        data.obsm[keys.LATENT_KEY] = model.get_latent_representation(query)
        for name, values in columns.items():
            data.obs[name] = values
        known, outliers = (columns.get(f"{keys.CLUSTERS_KEY}_{name}") for name in ("known", "outlier"))
        predicted = Predicted(
            command=config.command,
            model=str(config.model),
            input=str(config.input),
            outputs={"output": str(config.output)},
            alpha=config.alpha,
            cells=data.n_obs,
            clusters=count(columns[keys.CLUSTERS_KEY]),
            columns=list(columns),
            known=None if known is None else int(known.sum()),
            outliers=None if outliers is None else int(outliers.sum()),
            notes=phases.notes,
        )
        if types is not None and probabilities is not None:
            predicted.types = write_types(data, types, probabilities)
            predicted.columns += [keys.TYPES_KEY, keys.TYPES_CONFIDENCE_KEY]
        if predicted.outliers is not None and predicted.outliers > data.n_obs / 2:
            phases.note(
                f"{predicted.outliers:,} of {counted(data.n_obs, 'cell')} are unlike the cells of the model. Check that these are raw counts "
                "of the same genes, and name the layer that holds them: `--layer counts`."
            )
        begin("writing")
        data.uns[keys.RUN_KEY] = {"command": config.command, "model": str(config.model), "alpha": config.alpha}
        write(found, unfinished, config.output)
        finish(unfinished, config.output, phases)
    return predicted


def _columns(model: SCRCL, query: AnnData | MuData, alpha: float) -> dict[str, pd.Series]:
    """Columns of ``obs``: the clusters as the run has them, how probable each is, and how well the cells fit."""
    chosen = {"n_clusters": None, "seed": 0, **(model.run_ or {}).get("clustering", {})}
    number, seed = chosen["n_clusters"], chosen["seed"]
    clusters = model.get_clusters(query, **chosen)
    columns = {keys.CLUSTERS_KEY: clusters}
    of_consensus = chosen.get("method", "consensus") == "consensus"
    if of_consensus:
        probabilities = model.get_cluster_probabilities(query, n_clusters=number, seed=seed)
        own = probabilities.to_numpy()[np.arange(len(clusters)), clusters.cat.codes]
        columns[keys.CLUSTERS_PROBABILITY_KEY] = pd.Series(own, index=clusters.index)
    if model.registry["setup_args"].get("spatial_key") is None:
        quality = model.get_mapping_quality(query, n_clusters=number, alpha=alpha, seed=seed)
        for name in quality.columns.drop(["cluster"] if of_consensus else ["cluster", "confidence"]):
            columns[f"{keys.CLUSTERS_KEY}_{name}"] = quality[name]
    return columns


def _read(config: PredictConfig, model: SCRCL) -> tuple[Input, AnnData | MuData]:
    """The input, and its cells as the model looks for them: with counts in the layer that the model reads."""
    setup = model.registry["setup_args"]
    of_run = (model.run_ or {}).get("layer")
    _check_modalities(config, setup.get("modalities"))
    layer = _layer(config, setup, of_run)
    same = {name: setup.get(name) for name in ("modalities", "spatial_key", "sample_key", "batch_key", "condition_key")}
    try:
        found = read(replace(config, layer=layer, **same))
    except ScrclError as error:
        options = [OPTIONS[name] for name in ("layer", *same)]
        asked = next((option for option in options if error.what.startswith(f"{option}=")), None)
        if asked is None or (asked == "--layer" and config.layer is not None):
            raise
        other = f", or name where the counts are: --layer {NO_LAYER}, or a layer" if asked == "--layer" else ""
        remedy = f"The model was trained with this {asked}: add it to the input{other}."
        raise UserError(error.what, f"{error.remedy} {remedy}") from error
    data = found.data
    genes = model._reference.all_genes
    is_table = config.input is not None and suffix(config.input) in TABLES
    if is_table and genes.isin(data.obs_names).mean() > 0.5 > genes.isin(data.var_names).mean():
        remedy = "Leave --transpose out." if config.transpose else "Pass --transpose."
        raise UserError(f"The cells of {config.input} have the names of the genes of the model.", remedy)
    if isinstance(data, MuData):
        if config.layer is None:
            return found, data
        of_input, of_model = found.setup.get("layers", {}), setup.get("layers") or {}
        mods = {
            name: _with_counts(data.mod[name], of_input.get(name), of_model.get(name)) for name in setup["modalities"]
        }
        query = MuData(mods)
        query.obs = data.obs
        for key, value in data.obsm.items():
            query.obsm[key] = value
        return found, query
    if layer is None and (of_run or setup.get("layer")) is not None:
        found.notes.append(f"Counts were read from X. The model was trained on the layer {of_run or setup['layer']!r}.")
    query = _with_counts(data, found.setup.get("layer"), setup.get("layer"))
    if found.copied is not None:
        with h5py.File(found.copied, "r") as file:  # what else the setup names
            for slot, argument in (("obsm", "features_key"), ("obsp", "spatial_neighbors_key")):
                key = setup.get(argument)
                if key is not None and key in file.get(slot, {}):
                    getattr(query, slot)[key] = read_elem(file[slot][key])
    return found, query


def _check_modalities(config: PredictConfig, modalities: Mapping[str, str] | None) -> None:
    """Refuse a file of several modalities where the model is of one, and the other way round."""
    several = config.input is not None and config.input.suffix.lower() == ".h5mu"
    if several and not modalities:
        raise UserError(
            f"{config.input} holds several modalities, but the model was trained on one.",
            "Write this one to a file of its own in Python: `mudata.read_h5mu(...)['rna'].write_h5ad('rna.h5ad')`.",
        )
    if modalities and not several:
        raise UserError(
            f"{config.input} holds one modality, but the model was trained on {', '.join(map(repr, modalities))}.",
            "Name an .h5mu file that holds these.",
        )


def _layer(config: PredictConfig, setup: State, of_run: str | None) -> str | None:
    """Layer to read, in the form of the option; where none is named, that of the model."""
    given = config.layer
    if setup.get("modalities"):
        given = of_run if given is None else given
        named = {} if given is None else pairs(given)
        if named is None:
            return str(given)  # which is refused
        named = {**(setup.get("layers") or {}), **named}
        return ",".join(f"{name}={of}" for name, of in named.items() if of != NO_LAYER) or None
    if given is None:
        return (of_run or setup.get("layer")) if config.input is not None and _has_layers(config.input) else None
    return None if given == NO_LAYER else given


def _has_layers(path: Path) -> bool:
    """Whether there may be counts in any other place than the one matrix."""
    if path.is_dir():
        return (path / "layers").exists()
    if not h5py.is_hdf5(path):
        return False
    with explained(path, "an HDF5 file"), h5py.File(path, "r") as file:
        return "layers" in file


def _with_counts(data: AnnData, of_input: str | None, of_model: str | None) -> AnnData:
    """The cells with their counts in the layer that the model reads, beside the data that are written."""
    counts = data.X if of_input is None else data.layers[of_input]
    query = AnnData(counts, obs=data.obs, var=data.var, uns=data.uns, obsm=dict(data.obsm), obsp=dict(data.obsp))
    if of_model is not None:
        query.layers[of_model] = counts
    return query
