"""The two papers: their published numbers, and the commands that reproduce them."""
