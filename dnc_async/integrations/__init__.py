"""One module per framework (torch, scikit-learn, ray, jax, fsspec, notebooks), lazily imported and mutually unaware.

None is here yet: a stream is an async iterator of numpy arrays, which all of them take. Adapters come with the features
that need them.
"""
