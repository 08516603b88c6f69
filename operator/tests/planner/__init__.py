"""The planner: rollouts, properties, gates. A package, so that pytest never takes `operator` for a package."""
