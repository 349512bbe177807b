"""The book: a module for each chapter, the claims, and what runs and builds the pages."""
