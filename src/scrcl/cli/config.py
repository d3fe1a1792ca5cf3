"""What a command is to do: one dataclass for each command; `options` documents the fields."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class InputConfig:
    """The cells that are read; no ``input`` stands for the data of the demo, and no ``layer`` for ``X``."""

    input: Path | None
    layer: str | None = None
    raw: bool = False
    modalities: dict[str, str] | None = None
    transpose: bool = False
    spatial_key: str | None = None
    sample_key: str | None = None
    batch_key: str | list[str] | None = None
    condition_key: str | None = None
    labels_key: str | None = None
    unlabeled_category: str | None = None
    gene_symbols: str | None = None

    @property
    def batch_keys(self) -> list[str]:
        """The columns of batches."""
        return [self.batch_key] if isinstance(self.batch_key, str) else self.batch_key or []


@dataclass(frozen=True, kw_only=True)
class Config(InputConfig):
    """Options of all commands, and the command as it was typed; ``replace_output`` overwrites the output alone."""

    json: bool = False
    overwrite: bool = False
    replace_output: bool = False
    command: str = ""


@dataclass(frozen=True, kw_only=True)
class RunConfig(Config):
    """``scrcl run`` and ``scrcl demo``; ``None`` stands for a default of the model, or for nothing to write."""

    output: Path
    n_clusters: int | None = None
    method: Literal["consensus", "kmeans", "leiden"] = "consensus"
    resolution: float | None = None
    epochs: int | None = None
    batch_size: int | None = None
    device: str = "auto"
    seed: int = 0
    plots: Path | None = None
    markers: Path | None = None
    tree: Path | None = None
    report: Path | None = None
    names: str | None = None
    save_model: Path | None = None


@dataclass(frozen=True, kw_only=True)
class PredictConfig(Config):
    """``scrcl predict``."""

    output: Path
    model: Path
    alpha: float = 0.01


@dataclass(frozen=True, kw_only=True)
class NamesConfig(Config):
    """``scrcl names``; ``markers`` is a file, or the name of a collection."""

    markers: str
    output: Path | None = None
    table: Path | None = None
    groupby: str = "scrcl"
    orthologs: Path | None = None
    seed: int = 0
