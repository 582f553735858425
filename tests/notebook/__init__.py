"""With a real Jupyter kernel."""
