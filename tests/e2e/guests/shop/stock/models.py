"""What is sold."""

from django.db import models


class Item(models.Model):
    """One thing on the shelf."""

    name = models.CharField(max_length=60)
    cents = models.PositiveIntegerField(default=0)

    def __str__(self) -> str:
        return self.name
