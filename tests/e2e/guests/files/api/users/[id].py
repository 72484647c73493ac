"""A Lambda handler."""


def handler(event: dict, context: object) -> object:
    """Tell which user, and which function."""
    return {"user": event["queryStringParameters"], "function": context.function_name}
