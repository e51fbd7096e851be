"""How Sphinx makes the site: from executed notebooks, with nothing downloaded."""

project = "From ResNet to ConvNeXt"
language = "en"
extensions = ["myst_nb"]
nb_execution_mode = "off"
nb_merge_streams = True
nb_render_markdown_format = "myst"  # of outputs; the default has no tables
nb_code_prompt_show = "Show the code"
nb_code_prompt_hide = "Hide the code"
nb_ipywidgets_js: dict[str, str] = {}  # widgets have become pictures
myst_heading_anchors = 3
html_theme = "sphinx_book_theme"
html_title = project
html_static_path = html_css_files = ["site.css"]
html_use_index = False
html_show_search_summary = False  # they are fetched, which a folder does not allow
html_context = {"default_mode": "auto"}  # light or dark, as the reader's system
html_copy_source = False
html_show_copyright = False
html_theme_options = {
    "use_download_button": False,
    "use_fullscreen_button": False,
    "navbar_persistent": [],
    "footer_content_items": [],
    "article_header_end": ["toggle-secondary-sidebar.html"],
}
