"""What a long job on shared machines needs; nothing of pose or animals."""
