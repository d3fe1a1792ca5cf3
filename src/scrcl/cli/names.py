"""Names of the clusters of a file, from marker genes. Wiring only."""

from contextlib import ExitStack
from dataclasses import dataclass, field, replace

import h5py
import numpy as np
import pandas as pd
from anndata.io import read_elem
from mudata import MuData
from rich.console import Console
from rich.table import Table

from scrcl.data.sources import RNA, Source, anndata_sources, mudata_sources
from scrcl.model.expression import read_groups
from scrcl.model.marker_fit import Naming, logarithms_of
from scrcl.utils import keys
from scrcl.utils.checks import check_key
from scrcl.utils.errors import ScrclKeyError
from scrcl.utils.progress import begin

from .causes import explained
from .config import NamesConfig
from .errors import UserError
from .inputs import Input, read
from .marker_lists import read_sets, records
from .options import pairs
from .outputs import finish, opened, reserved, write
from .progress import Phases, quiet
from .symbols import symbols_column

#: Columns of the table that is shown, and their titles.
SHOWN = {"name": "name", "confidence": "confidence", "second": "runner-up", "genes": "genes", "reason": "reason"}
#: Genes that are shown.
N_SHOWN = 5


@dataclass
class Named:
    """Names that are reported."""

    command: str
    input: str
    markers: str
    names: pd.DataFrame
    outputs: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, object]:
        """In plain containers."""
        return {**vars(self), "names": records(self.names)}

    def print(self, console: Console) -> None:
        """As a table."""
        table = Table("cluster", *SHOWN.values(), box=None, pad_edge=False)
        for cluster, row in self.names.iterrows():
            confidence = "" if pd.isna(row["confidence"]) else f"{row['confidence']:.2f}"
            genes = ", ".join(str(row["genes"]).split(", ")[:N_SHOWN])
            table.add_row(str(cluster), row["name"], confidence, row["second"], genes, row["reason"])
        console.print(table)
        for path in self.outputs.values():
            console.print(f"Written to {path}", soft_wrap=True)


def name(config: NamesConfig, phases: Phases) -> Named:
    """Read, name, and write.

    Parameters
    ----------
    config
        The options.
    phases
        Where progress is shown.
    """
    with (
        reserved(config.output) as unfinished,
        reserved(config.table) as table,
        quiet(phases),
        ExitStack() as files,
    ):
        begin("reading")
        sets = read_sets(config.markers)
        found = read(_as_run(config))
        data = files.enter_context(opened(found, config.output, phases))
        _check_groups(config, data.obs)
        rows, division, names = read_groups(data, np.arange(data.n_obs), config.groupby, min_groups=2)
        begin("names")
        sources, var = _sources(found)
        logarithms = {name: logarithms_of(source) for name, source in sources.items()}
        naming = Naming.of(
            data,
            sources,
            logarithms,
            sets,
            seed=config.seed,
            gene_symbols=symbols_column(var, config.gene_symbols),
            orthologs=config.orthologs,
        )
        result = naming.of_groups(rows, division, names, keys.CELL_NAMES_KEY)
        named = Named(config.command, str(config.input), sets.source or config.markers, result, notes=phases.notes)
        begin("writing")
        if unfinished is not None and config.output is not None:
            write(found, unfinished, config.output)
            finish(unfinished, config.output, phases)
            named.outputs["output"] = str(config.output)
        if table is not None and config.table is not None:
            result.to_csv(table)
            finish(table, config.table, phases)
            named.outputs["table"] = str(config.table)
    return named


def _check_groups(config: NamesConfig, obs: pd.DataFrame) -> None:
    """Refuse a file without the clusters."""
    try:
        check_key(config.groupby, obs, "--groupby", f"obs of {config.input}")
    except ScrclKeyError as error:
        remedy = (
            "Find clusters first with `scrcl run` and name its output, or name a column of clusters: --groupby KEY."
        )
        raise UserError(error.what, f"{error.remedy} {remedy}") from error


def _sources(found: Input) -> tuple[dict[str, Source], pd.DataFrame]:
    """The counts of RNA, and the table of the genes."""
    data = found.data
    if not isinstance(data, MuData):
        return anndata_sources(data, found.setup.get("layer"), None), data.var
    name = next((name for name, kind in found.setup["modalities"].items() if kind == RNA), None)
    if name is None:
        raise UserError(
            "--modalities names no modality of RNA, in which clusters are named.",
            f"Name it, for example --modalities {next(iter(data.mod))}={RNA}.",
        )
    return mudata_sources(data, {name: RNA}, found.setup.get("layers"), None), data.mod[name].var


def _as_run(config: NamesConfig) -> NamesConfig:
    """The options with the modalities and the layers that scrcl run read, if it wrote the file and others are not named."""
    layer, modalities = config.layer, config.modalities
    if config.input is not None and h5py.is_hdf5(config.input):
        with explained(config.input, "an HDF5 file"), h5py.File(config.input, "r") as file:
            place = f"uns/{keys.RUN_KEY}/parameters"
            record = read_elem(file[place]) if place in file else {}
            modalities = modalities or record.get("modalities")
            if layer is None:
                layer = _written_layer(file, str(record.get("layer", "X")))
    return replace(config, layer=None if layer == "X" else layer, modalities=modalities)


def _written_layer(file: h5py.File, read: str) -> str | None:
    """The layer that scrcl run read, if its output has it; counts of ``raw`` are X there."""
    if "mod" in file:
        layers = {name: layer for name, layer in (pairs(read) or {}).items() if f"mod/{name}/layers/{layer}" in file}
        return ",".join(f"{name}={layer}" for name, layer in layers.items()) or None
    return read if f"layers/{read}" in file else None
