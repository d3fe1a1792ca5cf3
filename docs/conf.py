"""Configuration of the documentation. See https://www.sphinx-doc.org/en/master/usage/configuration.html."""

import builtins
import logging
import shutil
import sys
import warnings
from datetime import datetime
from importlib.metadata import metadata
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.ext.napoleon import NumpyDocstring

import scrcl

HERE = Path(__file__).parent

# -- Project ----------------------------------------------------------------------------------------------------------

info = metadata("scrcl")
project = info["Name"]
author = "scrcl developers"
copyright = f"{datetime.now():%Y}, {author}"
version = release = info["Version"]
repository_url = "https://github.com/scrcl/scrcl"

# -- Tutorials --------------------------------------------------------------------------------------------------------
# The notebooks live in tutorials/ at the top of the repository, where people look for them. Sphinx reads only what is
# below its own folder, so they are copied. The copies are ignored by git.

TUTORIALS = HERE / "tutorials"
shutil.rmtree(TUTORIALS, ignore_errors=True)
TUTORIALS.mkdir()
for notebook in sorted((HERE.parent / "tutorials").glob("*.ipynb")):
    shutil.copy2(notebook, TUTORIALS)

# -- Members of the model ---------------------------------------------------------------------------------------------

#: Titles of what the modules of scrcl.model add to the model, in the order of use.
GROUPS = {
    "setup": "Setup",
    "training": "Training",
    "cells": "Cells",
    "clusters": "Clusters",
    "certainty": "Cluster confidence",
    "labels": "Labels",
    "modalities": "Modalities",
    "genes": "Genes",
    "markers": "Marker genes and names",
    "pseudobulk": "Conditions",
    "batches": "Batches",
    "saving": "Saving and loading",
}
#: Methods of scvi-tools that raise an error, as they are not supported.
REFUSED = ("setup_annbatch",)


def members_by_group(model: type) -> dict[str, list[str]]:
    """Public members that are defined in this package, by the title of their group and in the order of the source."""
    found: dict[str, list[str]] = {}
    names = dict.fromkeys(name for cls in reversed(model.__mro__) for name in vars(cls))
    for name in names:
        member = getattr(model, name)
        # A wrapped method of scvi-tools is in a class of this package, but keeps its module.
        package, _, module = (getattr(member, "__module__", None) or "").rpartition(".")
        if package == "scrcl.model" and callable(member) and not name.startswith("_") and name not in REFUSED:
            found.setdefault(module, []).append(name)
    modules = [*(module for module in GROUPS if module in found), *(module for module in found if module not in GROUPS)]
    return {GROUPS.get(module, module.replace("_", " ").capitalize()): found[module] for module in modules}


# -- Extensions -------------------------------------------------------------------------------------------------------

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx_autodoc_typehints",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinxcontrib.bibtex",
    "sphinxext.opengraph",
]

autosummary_generate = True
autosummary_context = {"groups": members_by_group(scrcl.SCRCL)}
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # sphinx_autodoc_typehints puts the types beside the parameters
always_use_bars_union = True
typehints_defaults = "braces"
typehints_document_rtype_none = False
napoleon_google_docstring = False
napoleon_numpy_docstring = True
napoleon_include_init_with_doc = False
napoleon_use_param = True
napoleon_use_rtype = True
default_role = "literal"

myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath", "html_image"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # the tutorials are committed with their output
nb_merge_streams = True
nb_output_stderr = "show"

bibtex_bibfiles = ["references.bib"]
bibtex_default_style = "plain"
bibtex_reference_style = "author_year"

ogp_site_url = "https://scrcl.readthedocs.io"
ogp_social_cards = {"enable": False}

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

# -- Links to other projects ------------------------------------------------------------------------------------------
# Every link is checked, in every build. Links to another project can be checked only where its inventory can be read: on
# Read the Docs, and wherever there is a network. Where it cannot, they stay text (see `leave_out_what_cannot_be_read`).

intersphinx_mapping = {
    "anndata": ("https://anndata.scverse.org/en/stable/", None),
    "matplotlib": ("https://matplotlib.org/stable/", None),
    "mudata": ("https://mudata.readthedocs.io/stable/", None),
    "numpy": ("https://numpy.org/doc/stable/", None),
    "pandas": ("https://pandas.pydata.org/docs/", None),
    "python": ("https://docs.python.org/3", None),
    "scanpy": ("https://scanpy.scverse.org/en/stable/", None),
    "scvi": ("https://docs.scvi-tools.org/en/stable/", None),
    "spatialdata": ("https://spatialdata.scverse.org/en/stable/", None),
    "squidpy": ("https://squidpy.readthedocs.io/en/stable/", None),
    "torch": ("https://docs.pytorch.org/docs/stable/", None),
}
intersphinx_timeout = 10  # seconds

nitpicky = True
nitpick_ignore_regex = [
    # Private or unlisted in the inventories; they occur in docstrings that are inherited, or stand for what is passed on.
    (r"py:.*", r"(lightning|mudata|scvi)\..*"),
    # The plan, whose options are described where they are taken, and what is not public.
    (r"py:.*", r"scrcl\.nn\.plan\..*"),
    (r"py:.*", r"scrcl\..*\._.*"),
    (r"py:.*", r"scrcl\.cluster\.tree\..*"),
    (r"py:.*", r"scrcl\.data\.marker_sets\..*"),
]
# sphinx_autodoc_typehints calls a method that Sphinx has deprecated.
warnings.filterwarnings("ignore", message=".*_RstSnippetParser.set_application.*")
suppress_warnings = [
    "config.cache",  # typehints_fixup_module_name is a function
    "mystnb.unknown_mime_type",  # widgets in notebooks, which have a text form beside them
    "sphinx_autodoc_typehints.forward_reference",
    "sphinx_autodoc_typehints.guarded_import",
]


# Classes are documented where users import them from, and not where they are defined.
PUBLIC_MODULES = {
    "anndata._core.anndata": "anndata",
    "matplotlib.axes._axes": "matplotlib.axes",
    "pandas.core.frame": "pandas",
    "pandas.core.series": "pandas",
}


def typehints_fixup_module_name(module: str) -> str:
    """Map the module that defines a class to the one that documents it."""
    return PUBLIC_MODULES.get(module, module)


# -- Sources and output -----------------------------------------------------------------------------------------------

templates_path = ["_templates"]
exclude_patterns = ["_build", "Thumbs.db", ".DS_Store", "**.ipynb_checkpoints"]

html_theme = "sphinx_book_theme"
html_title = project
html_static_path = ["_static"]
html_favicon = "_static/logo.svg"
html_css_files = ["pages.css"]
html_theme_options = {
    "logo": {"image_light": "_static/logo.svg", "image_dark": "_static/logo.svg", "text": project},
    "path_to_docs": "docs/",
    "repository_branch": "main",
    "repository_url": repository_url,
    "use_issues_button": True,
    "use_repository_button": True,
    "navigation_with_keys": False,
    "navbar_persistent": [],  # the search is in the sidebar
}
pygments_style = "default"


# -- "Returns" without a name or type ---------------------------------------------------------------------------------
# Our docstrings leave types to the annotations, so "Returns" holds prose, which napoleon would take for a type.

_parse_structured_returns = NumpyDocstring._parse_returns_section


def _parse_returns(self: NumpyDocstring, section: str) -> list[str]:
    remaining = list(self._lines)
    lines = self._dedent(self._consume_to_next_section())
    if any(line.startswith(" ") for line in lines if not line.lstrip().startswith(("-", "*"))):
        self._lines.clear()
        self._lines.extend(remaining)
        return _parse_structured_returns(self, section)
    return self._format_block(":returns: ", lines) + [""]


# -- Without a network ------------------------------------------------------------------------------------------------

# That an inventory cannot be read is no fault of a page, but Sphinx gives the warning no type that could be suppressed.
logging.getLogger("sphinx.sphinx.ext.intersphinx").addFilter(
    lambda record: "failed to reach any of the inventories" not in str(record.msg)
)


def leave_out_what_cannot_be_read(app: Sphinx) -> None:
    """Do not look for links to projects whose inventories could not be read."""
    read = getattr(app.env, "intersphinx_named_inventory", {})
    unread = [project for project in intersphinx_mapping if project not in read]
    if "python" in unread:
        unread += [*sys.builtin_module_names, *sys.stdlib_module_names, *dir(builtins)]
    app.config.nitpick_ignore_regex += [(r"py:.*", rf"{project}(\..*)?") for project in unread]
    if unread:
        print("Not linked, as the inventories cannot be read:", *(set(unread) & set(intersphinx_mapping)))


def setup(app: Sphinx) -> None:
    """Adapt Sphinx."""
    NumpyDocstring._parse_returns_section = _parse_returns
    app.connect("builder-inited", leave_out_what_cannot_be_read, priority=900)  # after they are read
