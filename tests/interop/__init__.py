"""With real parts of others."""
