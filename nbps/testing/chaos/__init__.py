"""Real jobs in trouble: workers stopped and killed, nodes and networks failing."""
