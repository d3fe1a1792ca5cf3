"""What a command is to do: one dataclass for each, whose fields are the options."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class InputConfig:
    """The cells that are read.

    Attributes
    ----------
    input
        File or folder of counts; ``None`` stands for the data of the demo.
    layer
        Layer that holds the counts, or ``"raw"``; ``None`` stands for ``X``. With several modalities, ``"rna=counts"``.
    modalities
        Kind of each modality that is used.
    transpose
        Whether a table has genes in rows.
    spatial_key, sample_key, batch_key, labels_key, unlabeled_category
        As in :meth:`scrcl.SCRCL.setup_anndata`.
    """

    input: Path | None
    layer: str | None = None
    modalities: dict[str, str] | None = None
    transpose: bool = False
    spatial_key: str | None = None
    sample_key: str | None = None
    batch_key: str | None = None
    labels_key: str | None = None
    unlabeled_category: str | None = None


@dataclass(frozen=True, kw_only=True)
class Config(InputConfig):
    """What all commands have.

    Attributes
    ----------
    output
        File that is written.
    json
        Whether results are printed in JSON.
    overwrite, replace_output
        Whether files that exist are replaced; whether at least the output is.
    command
        The line that was typed.
    """

    output: Path
    json: bool = False
    overwrite: bool = False
    replace_output: bool = False
    command: str = ""


@dataclass(frozen=True, kw_only=True)
class RunConfig(Config):
    """``scrcl run`` and ``scrcl demo``.

    Attributes
    ----------
    n_clusters, method, resolution
        How to cluster.
    epochs, batch_size, device, seed
        How to train; ``None`` stands for the default of the model.
    plots, save_model
        Folders to write.
    markers, report
        Further files to write.
    """

    n_clusters: int | None = None
    method: str = "consensus"
    resolution: float | None = None
    epochs: int | None = None
    batch_size: int | None = None
    device: str = "auto"
    seed: int = 0
    plots: Path | None = None
    markers: Path | None = None
    report: Path | None = None
    save_model: Path | None = None


@dataclass(frozen=True, kw_only=True)
class PredictConfig(Config):
    """``scrcl predict``.

    Attributes
    ----------
    model
        Folder of the saved model.
    alpha
        Expected share of outliers among cells like those of the model.
    """

    model: Path
    alpha: float = 0.01
