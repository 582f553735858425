"""Publishing targets."""
