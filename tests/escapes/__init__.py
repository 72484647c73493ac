"""What code in an instance reaches of the machine, by isolation tier."""
