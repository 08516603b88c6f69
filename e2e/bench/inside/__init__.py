"""What runs in the benchmark's pods: single files of the standard library alone."""
