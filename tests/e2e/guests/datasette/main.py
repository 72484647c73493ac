"""datasette as its authors publish it, over the database beside this file."""

from pathlib import Path

from datasette.app import Datasette

app = Datasette(immutables=[Path(__file__).with_name("plants.db")]).app()
