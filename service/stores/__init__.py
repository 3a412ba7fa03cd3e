"""Results in, the same results out for a while: one module for each kind of place that keeps them."""
