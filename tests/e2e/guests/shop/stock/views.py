"""Pages, uploads, streams, sessions."""

import hashlib

from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.csrf import csrf_exempt

from stock.models import Item


def shelf(request: HttpRequest) -> HttpResponse:
    """List the first items."""
    names = Item.objects.filter(id__lte=2).values_list("name", flat=True)
    return HttpResponse("\n".join(names), content_type="text/plain; charset=utf-8")


async def item(request: HttpRequest, number: int) -> HttpResponse:
    """Show one item, by an async view."""
    found = await Item.objects.filter(id=number).afirst()
    if found is None:
        return JsonResponse({"error": "not found"}, status=404)
    return JsonResponse({"name": found.name, "cents": found.cents})


def visits(request: HttpRequest) -> HttpResponse:
    """Count this session's visits."""
    request.session["visits"] = request.session.get("visits", 0) + 1
    return JsonResponse({"visits": request.session["visits"]})


@csrf_exempt
def upload(request: HttpRequest) -> HttpResponse:
    """Tell what was uploaded."""
    file = request.FILES["file"]
    digest = hashlib.sha256()
    for chunk in file.chunks():
        digest.update(chunk)
    told = {"name": file.name, "size": file.size, "sha256": digest.hexdigest()}
    return JsonResponse({**told, "note": request.POST.get("note")})


def rows(request: HttpRequest, count: int) -> StreamingHttpResponse:
    """Stream a table."""
    return StreamingHttpResponse(
        (f"{number},{number * number}\n" for number in range(count)), content_type="text/csv"
    )


def mistake(request: HttpRequest) -> HttpResponse:
    """Look for what does not exist, in a way that is handled; then in one that is not."""
    get_object_or_404(Item, id=-1) if "handled" in request.GET else 1 / 0
    return HttpResponse()
