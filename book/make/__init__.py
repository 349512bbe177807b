"""What `make` runs: the chapters, the pages, the tests."""
