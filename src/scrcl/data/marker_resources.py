"""Collections of marker genes that are installed as packages."""

import ast
import importlib.util
import json
import pickle
from importlib.metadata import version
from pathlib import Path
from typing import Any

from scrcl.utils.checks import did_you_mean
from scrcl.utils.errors import ScrclValueError
from scrcl.utils.files import UnsafeFileError

from .marker_sets import MarkerSets, arrange

#: Collections by name, each a package of the extra ``names``.
RESOURCES = ("cellconsensus",)
#: Least number of sources of a group of cellconsensus.
MIN_SOURCES = 5
#: The group of cellconsensus that holds T, NK and innate lymphoid cells. It calls it "T cell", so a T cell of its own is put below.
T_AND_NK, T_CELL, T_TERM = "t_nk", "t_cell", "CL:0000084"
T_CELLS = ("cd4_t", "cd8_t", "gd_t")
#: Cell Ontology terms of groups, where that of cellconsensus does not hold for all of the group.
TERMS = {
    T_AND_NK: "CL:0000542",  # lymphocyte
    T_CELL: T_TERM,
    "b_plasma": "CL:0000945",  # lymphocyte of B lineage
    "erythroid_megakaryocyte": "CL:0000988",  # hematopoietic cell
    "megakaryocyte": "CL:0000988",
    "smc_pericyte": "CL:0008034",  # mural cell
    "stem_progenitor": "CL:0011115",  # precursor cell
    "hsc": "CL:0008001",  # hematopoietic precursor cell
    "eosinophil_basophil": "CL:0000094",  # granulocyte
    "absorptive_epithelial": "CL:0000066",  # epithelial cell
    "secretory_epithelial": "CL:0000066",
    "basal_squamous": "CL:0000066",
    "renal_tubular": "CL:1000497",  # kidney cell
    "classical_mono": "CL:0000860",  # classical monocyte
    "enterocyte": "CL:0000584",
}


class _PlainUnpickler(pickle.Unpickler):
    """Reads containers, text and numbers, and no object of any class."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        raise UnsafeFileError(f"The file holds an object of the class {module_name}.{global_name}.")


def read_resource(name: str) -> MarkerSets:
    """Read an installed collection of marker genes by its name.

    Raises
    ------
    ScrclValueError
        If there is none of this name, or its package is not installed.
    """
    if name not in RESOURCES:
        raise ScrclValueError(
            f"markers={name!r} is neither a file nor a collection of marker genes.",
            f"Pass {' or '.join(map(repr, RESOURCES))}, lists, a table or the path of a file.{did_you_mean(name, RESOURCES)}",
            command=f"Name {' or '.join(map(repr, RESOURCES))}, or a file that is there.{did_you_mean(name, RESOURCES)}",
        )
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:
        raise ScrclValueError(
            f"markers={name!r} is not installed.",
            "Install it: `pip install 'scrcl[names]'`.",
            command="Install it: `pip install 'scrcl[names]'`.",
        )
    return _read_cellconsensus(Path(found.origin).parent / "data")


def read_plain_pickle(path: Path) -> Any:
    """Read a pickle of plain containers, without running code from it.

    Raises
    ------
    UnsafeFileError
        If it holds objects of classes.
    """
    with path.open("rb") as file:
        return _PlainUnpickler(file).load()


def _read_cellconsensus(folder: Path) -> MarkerSets:
    """The groups of cellconsensus in three levels, without its groups of other cells and of cancers."""
    levels = [read_plain_pickle(folder / f"consensus_cache_meta{number}.pkl") for number in ("", "2", "3")]
    groups = json.loads((folder / "cl_to_meta.json").read_text())
    of_terms = list(groups["cl_to_meta"].values())
    labels = [groups["meta_groups"], groups["meta2_groups"], groups["meta3_groups"]]
    above: list[dict[str, str]] = [{}]
    above += [{term[f"meta{n}"]: term[f"meta{n - 1 if n > 2 else ''}"] for term in of_terms} for n in (2, 3)]
    terms = _terms_of_groups(folder.parent / "consensus" / "cl_mapping.py") | TERMS

    genes, parents, names = {}, {}, {}
    for number, level in enumerate(levels):
        for key, weights in level["consensus"].items():
            parent = above[number].get(key)
            named = (
                key in labels[number] and key != "other" and not key.startswith("cancer") and not key.endswith("_other")
            )
            # The group of a key that has another parent one level below is there, as that of plasmacytoid dendritic cells.
            moved = number == 1 and above[2].get(key, key) != key
            placed = (number == 0 or parent in genes) and not moved
            if named and placed and key not in genes and level["n_sources"][key] >= MIN_SOURCES:
                genes[key], parents[key], names[key] = weights, parent, labels[number][key]
    genes[T_AND_NK], parents[T_AND_NK], names[T_AND_NK] = genes[T_CELL], None, "T / NK cell"
    full = read_plain_pickle(folder / "consensus_cache_full.pkl")
    genes[T_CELL] = full["consensus"][T_TERM]
    for key, parent in parents.items():
        if parent == T_CELL and key not in T_CELLS:
            parents[key] = T_AND_NK
    parents[T_CELL] = T_AND_NK
    return MarkerSets(
        *arrange(
            {names[key]: weights for key, weights in genes.items()},
            {names[key]: names[parent] for key, parent in parents.items() if parent is not None},
            "markers",
        ),
        weighted=True,
        terms={names[key]: terms[key] for key in genes if key in terms},
        aliases=json.loads((folder / "gene_alias.json").read_text()),
        organism="human",
        source=f"cellconsensus {version('cellconsensus')}",
    )


def _terms_of_groups(module: Path) -> dict[str, str]:
    """The table of Cell Ontology terms in the source of cellconsensus, which is not run."""
    for statement in ast.parse(module.read_text()).body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "META_TO_CL":
            return dict(ast.literal_eval(statement.value))
    return {}
