"""What everybody sees when code fails."""
