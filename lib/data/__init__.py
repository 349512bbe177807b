"""Data: where image files are (``sources``), paired image sets (``pairs``), the toy generator (``toy``)."""
