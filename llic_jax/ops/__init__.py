"""Functions of arrays that know of no network."""
