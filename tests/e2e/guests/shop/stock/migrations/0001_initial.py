"""The first table, and what is on the shelf from the beginning."""

from django.db import migrations, models


def fill(apps, schema_editor) -> None:
    """Put two things on the shelf."""
    item = apps.get_model("stock", "Item")
    item.objects.create(name="lamp", cents=4500)
    item.objects.create(name="süßes Kissen", cents=1999)


class Migration(migrations.Migration):
    """Makes the table of items."""

    initial = True
    operations = [
        migrations.CreateModel(
            "Item",
            [
                ("id", models.BigAutoField(primary_key=True)),
                ("name", models.CharField(max_length=60)),
                ("cents", models.PositiveIntegerField(default=0)),
            ],
        ),
        migrations.RunPython(fill),
    ]
