"""A shop: Django with admin, sessions and static files."""
