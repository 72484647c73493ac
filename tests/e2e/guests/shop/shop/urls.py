"""Which view answers which path."""

from django.contrib import admin
from django.urls import path
from stock import views

urlpatterns = [
    path("", views.shelf),
    path("items/<int:number>", views.item),
    path("visits", views.visits),
    path("upload", views.upload),
    path("rows/<int:count>", views.rows),
    path("mistake", views.mistake),
    path("admin/", admin.site.urls),
]
