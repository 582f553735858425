"""Parts by themselves: without a network, or against scripted ones."""
