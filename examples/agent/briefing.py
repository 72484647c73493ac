"""What the model is told beside the conversation."""

from __future__ import annotations

from typing import Final

BRIEFING: Final = (
    "You are a friendly office assistant. Look facts up in the notes instead of guessing, calculate"
    " with the tool, and answer in a sentence or two. Before a mail is sent, somebody is asked by"
    " itself: just call the tool."
)
MEMORY: Final = "What was said before, in short: "
SUMMARISE: Final = (
    "This conversation becomes too long. Write down in short what you need to remember of it."
)
