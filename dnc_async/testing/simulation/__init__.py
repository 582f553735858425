"""A whole client on a virtual clock: its engine, its streams and consumers, simulated gateways and a simulated disk."""
