"""The settings of the documentation site.

    sphinx-build -W --keep-going -b html docs docs/_build/html

Pages are Markdown that reads well where the repository is browsed, too.
"""

import sys
from pathlib import Path

from sphinx.application import Sphinx

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS))

from _site import links, notebooks, reference  # noqa: E402

import libragrad_lightning  # noqa: E402  (first: it mends a torchvision that does not fit)

project = "libragrad-lightning"
author = "The authors of libragrad-lightning"
release = version = libragrad_lightning.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinxcontrib.mermaid",
]
exclude_patterns = ["_build", "_site"]
templates_path = ["_templates"]
nitpicky = False
default_role = "py:obj"
maximum_signature_line_length = 88
python_use_unqualified_type_names = True

myst_enable_extensions = ["colon_fence"]
myst_fence_as_directive = ["mermaid"]
myst_heading_anchors = 3
mermaid_fullscreen = False

autosummary_generate = True
autosummary_ignore_module_all = False
autosummary_imported_members = True
autosummary_context = {"elsewhere": reference.documented_elsewhere(reference.packages(DOCS))}
autodoc_preserve_defaults = True
autodoc_member_order = "groupwise"
napoleon_numpy_docstring = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = f"libragrad-lightning {release}"
html_show_copyright = False
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {
    "source_repository": links.REPOSITORY,
    "source_branch": links.BRANCH,
    "source_directory": "docs/",
}
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True


def setup(app: Sphinx) -> None:
    """Connect what pages need before Sphinx reads them."""
    app.connect("builder-inited", notebooks.write_pages)
    app.connect("source-read", links.point_to_repository)
