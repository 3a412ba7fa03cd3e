"""segserve's export room: a trained PyTorch net becomes a proved bundle."""
