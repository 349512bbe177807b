"""Data: where image files are (``sources``), paired image sets (``pairs``), natural images with two
correlated attributes (``groups``) or of several domains (``domains``), and the toy generator (``toy``)."""
