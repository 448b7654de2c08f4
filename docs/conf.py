"""The documentation site: ``sphinx-build -W docs docs/_build/html``, without a network.

Pages read well on GitHub, too, where links go from page to page by their paths. Notebooks and
gallery have folders of their own at the top; copies are made of them here, which git ignores.
"""

import os
import re
import shutil
import sys
from pathlib import Path

import pararnn_solvers

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_extensions")]
os.environ.setdefault("MPLBACKEND", "agg")

project = "pararnn_solvers"
author = copyright = "The pararnn_solvers developers"
version = release = pararnn_solvers.__version__

extensions = [
    "mathml",
    "myst_nb",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.viewcode",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "gallery/*.ipynb", "gallery/*.py"]
templates_path = ["_templates"]
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme = "pydata_sphinx_theme"
html_title = f"pararnn_solvers {release}"
html_math_renderer = "mathml"
html_copy_source = html_show_sourcelink = False
html_sidebars = {
    page: []
    for page in (
        *("index", "start", "methods", "peers", "architecture", "changelog", "glossary"),
        "bibliography",
    )
}
html_theme_options = {
    "logo": {"text": "pararnn_solvers"},
    "navbar_align": "left",
    "navbar_end": ["theme-switcher"],
    "header_links_before_dropdown": 6,
    "show_prev_next": False,
    "show_toc_level": 2,
    "footer_start": ["copyright"],
    "footer_end": [],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # notebooks are executed by CI, and their outputs committed
nb_merge_streams = True

autosummary_generate = True
autosummary_imported_members = True
autodoc_typehints = "none"
numpydoc_show_class_members = False
numpydoc_xref_param_type = False

sphinx_gallery_conf = {
    "examples_dirs": "../gallery",
    "gallery_dirs": "gallery",
    "filename_pattern": r"/plot_",
    "ignore_pattern": r"^(?!(.*/)?plot_)",
    "within_subsection_order": "FileNameSortKey",
    "download_all_examples": False,
    "show_signature": False,
    "show_memory": False,
    "min_reported_time": 1e9,
    "write_computation_times": False,
    "remove_config_comments": True,
    "abort_on_example_error": True,
    "matplotlib_animations": False,
}


def copy_notebooks(app):
    """Put the notebooks where Sphinx finds them."""
    shutil.copytree(HERE.parent / "notebooks", HERE / "notebooks", dirs_exist_ok=True)


def point_at_copies(app, name, source):
    """Let links between pages, notebooks and scripts of the gallery lead to their pages here."""
    if name.startswith("notebooks/"):
        source[0] = source[0].replace("](../docs/", "](../")
    for folder, file, copy in (
        ("notebooks", r"(\w+)\.ipynb", r"\2.ipynb"),
        ("gallery", r"(plot_\w+)\.py", r"\2.rst"),
        ("gallery", r"(GALLERY_HEADER)\.rst", "index.rst"),
    ):
        link = rf"\]\(\.\./((?:\.\./)*){folder}/{file}"
        source[0] = re.sub(link, rf"](\1{folder}/{copy}", source[0])


def escape_stars(app, what, name, obj, options, lines):
    """Keep ``(T, *batch, d)`` and ``|F|``, outside of literals, from being read as markup."""
    for i, line in enumerate(lines):
        pieces = line.split("``")
        pieces[::2] = [re.sub(r"(?<!\\)(\*(?=batch)|\|(?=\S))", r"\\\1", p) for p in pieces[::2]]
        lines[i] = "``".join(pieces)


def setup(app):
    """Connect the functions above."""
    app.connect("autodoc-process-docstring", escape_stars, priority=900)
    app.connect("builder-inited", copy_notebooks, priority=100)
    app.connect("source-read", point_at_copies)
