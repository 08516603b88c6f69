"""The operator's runtime: what observes, acts and writes, tried against an API server in a dictionary."""
