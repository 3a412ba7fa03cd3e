"""A net's own structure, read from its graph: stages down and up, what is passed across, in words and as a drawing."""
