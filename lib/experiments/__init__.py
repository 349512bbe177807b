"""The book's heavy experiments: what one trial of each computes (`images`, `weights`, `toy`), and which
trials an experiment consists of (`table1` and the modules named for a chapter; `registry` lists them)."""
