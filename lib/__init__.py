"""The library behind the executable paper *SAM Enhances Feature Quality via Balanced Learning*."""
