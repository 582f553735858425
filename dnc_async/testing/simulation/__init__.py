"""A whole client on a virtual clock: its engine, its streams and their consumers, simulated gateways and a simulated disk."""
