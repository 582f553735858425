"""The engine: the stages of a stream, the channels between them, the bridge to the caller's loop, and the gap ledger."""
