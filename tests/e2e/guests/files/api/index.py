"""A plain handler."""


def handler(request: object) -> object:
    """Tell the query."""
    return {"query": request.query}
