"""The items in the admin."""

from django.contrib import admin

from stock.models import Item


@admin.register(Item)
class ItemAdmin(admin.ModelAdmin):
    """Lists items with their price."""

    list_display = ("name", "cents")
    search_fields = ("name",)
