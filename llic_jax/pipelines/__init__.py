"""Work on many photographs, by many processes or machines, as Apache Beam pipelines."""
