"""What Keyturn is measured against: each does the same as well as it can, and nothing of what makes it safe."""
