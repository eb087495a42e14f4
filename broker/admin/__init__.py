"""Pages that the broker serves itself: in development settings, one for newcomers."""

from broker.admin.page import dev_page

__all__ = ["dev_page"]
