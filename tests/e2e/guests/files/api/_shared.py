"""What functions share; no function itself."""

app = None
