"""All mutants."""

from __future__ import annotations

from typing import Final

from tests.mutants.attempting import ATTEMPTING
from tests.mutants.mutant import Mutant
from tests.mutants.replaying import REPLAYING
from tests.mutants.sequencing import SEQUENCING
from tests.mutants.storing import STORING

MUTANTS: Final[tuple[Mutant, ...]] = (*SEQUENCING, *STORING, *REPLAYING, *ATTEMPTING)
