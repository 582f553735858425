"""Stream datasets larger than the disk from IPFS into a training loop."""
