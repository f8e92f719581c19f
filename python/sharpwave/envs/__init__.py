"""The store's pay for observations of environments; each module needs its own extra."""
