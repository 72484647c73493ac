"""FastAPI over SQLAlchemy: a session for each request, sync and async endpoints, a lifespan."""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException
from pydantic import BaseModel, ConfigDict
from sqlalchemy import String, create_engine, func, select
from sqlalchemy.pool import NullPool
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

DATA = Path(os.environ.get("NOTES_DATA", "/nonexistent"))
# No pool: it would be smaller than the number of threads that want a connection at once.
engine = create_engine(
    f"sqlite:///{DATA}/notes.sqlite3", connect_args={"timeout": 30}, poolclass=NullPool
)


class Base(DeclarativeBase):
    """What tables derive from."""


class Note(Base):
    """One note."""

    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(String(80), unique=True)


class NewNote(BaseModel):
    """What `POST /notes` takes."""

    title: str


class SavedNote(NewNote):
    """What it answers."""

    model_config = ConfigDict(from_attributes=True)
    id: int


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Make the tables."""
    Base.metadata.create_all(engine)
    yield
    engine.dispose()


def session() -> Iterator[Session]:
    """Give each request a session."""
    with Session(engine) as opened:
        yield opened


app = FastAPI(lifespan=lifespan)
Database = Annotated[Session, Depends(session)]


@app.post("/notes", status_code=201)
def add(note: NewNote, database: Database) -> SavedNote:
    """Add a note, or find the one of that title."""
    found = database.scalar(select(Note).where(Note.title == note.title))
    if found is None:
        found = Note(title=note.title)
        database.add(found)
        database.commit()
    return SavedNote.model_validate(found)


@app.get("/notes")
def titles(database: Database, like: str = "%") -> list[str]:
    """List titles."""
    query = select(Note.title).where(Note.title.like(like)).order_by(Note.title)
    return list(database.scalars(query))


@app.get("/notes/{number}")
def one(number: int, database: Database) -> SavedNote:
    """Return one note."""
    found = database.get(Note, number)
    if found is None:
        raise HTTPException(404, "no such note")
    return SavedNote.model_validate(found)


@app.get("/count")
async def count(database: Database) -> dict[str, int]:
    """Count notes in an async endpoint."""
    return {"notes": database.scalar(select(func.count()).select_from(Note)) or 0}
