"""Types that a saved model learnt from labels, carried to the cells of a file. Wiring only."""

import argparse
from dataclasses import dataclass, field
from typing import Any

from mudata import MuData
from rich.console import Console

from scrcl.model.scrcl import SCRCL
from scrcl.utils import keys
from scrcl.utils.progress import begin, listening

from .errors import UserError
from .findings import types_table
from .inputs import read
from .outputs import writable, write, write_types
from .progress import Phases
from .run import quiet


@dataclass
class Carried:
    """What is reported of types that were carried to further cells."""

    command: str
    model: str
    input: str
    outputs: dict[str, str]
    alpha: float
    cells: int
    types: dict[str, int]
    notes: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """In plain containers."""
        return vars(self)

    def print(self, console: Console) -> None:
        """As a table."""
        console.print(types_table(self.types, f"{self.cells:,} cells"))
        console.print(
            f"Written to {self.outputs['output']}: obs['{keys.TYPES_KEY}'], obs['{keys.TYPES_CONFIDENCE_KEY}'], "
            f"obsm['{keys.LATENT_KEY}']",
            markup=False,
            soft_wrap=True,
        )


def predict(arguments: argparse.Namespace, command: str, phases: Phases) -> Carried:
    """Load, read, predict, and write.

    Parameters
    ----------
    arguments
        What :func:`scrcl.cli.options.parse` read.
    command
        What was typed.
    phases
        Told of the phases.
    """
    notes: list[str] = []
    with (
        writable(arguments.output) as unfinished,
        quiet(arguments.input, phases, notes),
        listening(phases),
    ):
        assert unfinished is not None  # there is always an output
        begin("reading")
        setup = SCRCL.load_registry(arguments.model)["setup_args"]
        layer = arguments.layer or setup.get("layer")
        if setup.get("layers") and arguments.layer is None:
            layer = ",".join(f"{name}={of}" for name, of in setup["layers"].items())
        known = (setup.get(key) for key in ("spatial_key", "sample_key", "batch_key"))
        found = read(arguments.input, layer, setup.get("modalities"), arguments.transpose, *known)
        notes += found.notes
        data = found.data
        if isinstance(data, MuData) != (arguments.output.suffix == ".h5mu"):
            wanted = ".h5mu, as the input has several modalities" if isinstance(data, MuData) else ".h5ad"
            raise UserError(f"-o {arguments.output} must end in {wanted}.")
        if not isinstance(data, MuData) and setup.get("layer") is not None and setup["layer"] not in data.layers:
            data.layers[setup["layer"]] = data.X  # where the model looks for counts
        model = SCRCL.load(arguments.model, adata=False)
        types = model.predict(data, alpha=arguments.alpha)
        carried = Carried(
            command=command,
            model=str(arguments.model),
            input=str(arguments.input),
            outputs={"output": str(arguments.output)},
            alpha=arguments.alpha,
            cells=data.n_obs,
            types=write_types(data, types, model.predict(data, soft=True)),
            notes=notes,
        )
        data.obsm[keys.LATENT_KEY] = model.get_latent_representation(data)
        begin("writing")
        data.uns[keys.RUN_KEY] = {"command": command, "model": str(arguments.model), "alpha": arguments.alpha}
        write(data, found.copied, unfinished, arguments.output)
    return carried
