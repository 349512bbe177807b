"""Every figure of the book: one style and palette (``style``), one module for each group of chapters."""
