"""What the tour stands on: a platform of its own, plain HTTP, and a screen."""
