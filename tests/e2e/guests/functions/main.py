"""A target of functions-framework."""

import functions_framework
from flask import Request, jsonify


@functions_framework.http
def greet(request: Request) -> object:
    """Answer by path and method."""
    match request.path.strip("/"):
        case "json":
            return jsonify(args=request.args.to_dict(flat=False), method=request.method)
        case "tuple":
            return "made", 201, {"X-One": "1"}
        case "form":
            return dict(request.form)
        case "fail":
            raise ValueError("of the user")
        case path:
            return f"hello {path} by {request.method}"
