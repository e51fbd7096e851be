"""How the study is taught: what the notebooks of the course share."""
