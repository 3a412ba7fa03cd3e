"""segserve's benchmarks: what a request costs, as ratios measured in one run."""
