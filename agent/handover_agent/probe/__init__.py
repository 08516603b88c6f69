"""Active probes: the agent connects to Services as any process of its node does, and measures that."""
