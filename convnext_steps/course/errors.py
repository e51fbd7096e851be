"""What can go wrong with the course's pages, in words for whoever made them."""


class SiteError(RuntimeError):
    """Sphinx found something to complain of; the message is what it said."""
