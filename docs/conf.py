"""Configuration of the documentation. See https://www.sphinx-doc.org/en/master/usage/configuration.html."""

import os
import shutil
import warnings
from datetime import datetime
from importlib.metadata import metadata
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.ext.napoleon import NumpyDocstring

HERE = Path(__file__).parent
# Read the Docs reaches the inventories of other projects. A build elsewhere must work without a network.
ONLINE = "READTHEDOCS" in os.environ

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

# -- Extensions -------------------------------------------------------------------------------------------------------

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx_autodoc_typehints",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinxcontrib.bibtex",
    "sphinxext.opengraph",
]

autosummary_generate = True
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # sphinx_autodoc_typehints puts the types beside the parameters
always_use_bars_union = True
typehints_defaults = "braces"
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

bibtex_bibfiles = ["references.bib"]
bibtex_default_style = "plain"
bibtex_reference_style = "author_year"

ogp_site_url = "https://scrcl.readthedocs.io"
ogp_social_cards = {"enable": False}

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

if ONLINE:
    extensions.append("sphinx.ext.intersphinx")
intersphinx_mapping = {
    "anndata": ("https://anndata.readthedocs.io/en/stable/", None),
    "matplotlib": ("https://matplotlib.org/stable/", None),
    "numpy": ("https://numpy.org/doc/stable/", None),
    "pandas": ("https://pandas.pydata.org/docs/", None),
    "python": ("https://docs.python.org/3", None),
    "scanpy": ("https://scanpy.readthedocs.io/en/stable/", None),
    "scipy": ("https://docs.scipy.org/doc/scipy/", None),
    "scvi": ("https://docs.scvi-tools.org/en/stable/", None),
    "sklearn": ("https://scikit-learn.org/stable/", None),
    "torch": ("https://docs.pytorch.org/docs/stable/", None),
}

# Links to other projects can only be checked where their inventories are read.
nitpicky = ONLINE
nitpick_ignore_regex = [
    # Private or unlisted in the inventories; they occur in docstrings that are inherited.
    (r"py:.*", r"(lightning|mudata|scvi)\..*"),
    (r"py:.*", r"scrcl\._.*"),
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
html_theme_options = {
    "path_to_docs": "docs/",
    "repository_branch": "main",
    "repository_url": repository_url,
    "use_issues_button": True,
    "use_repository_button": True,
    "navigation_with_keys": False,
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


def setup(app: Sphinx) -> None:
    """Adapt Sphinx."""
    NumpyDocstring._parse_returns_section = _parse_returns
