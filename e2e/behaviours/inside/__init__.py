"""What runs in the pods: a single file of the standard library alone."""
