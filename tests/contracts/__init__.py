"""What each implementation of a protocol must do: one suite, run over all of them."""
