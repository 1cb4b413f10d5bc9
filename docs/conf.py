"""How the documentation is built: Sphinx over Markdown pages and numpydoc docstrings."""

import attnext

project = "attnext"
release = attnext.__version__
html_theme = "furo"
html_title = f"attnext {release}"
extensions = ["myst_parser", "numpydoc", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
# Links into the source tree lead nowhere in HTML.
suppress_warnings = ["myst.xref_missing"]
numpydoc_show_class_members = False
