"""segserve's training room: PyTorch nets and how they are trained."""
