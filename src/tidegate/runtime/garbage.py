"""How often the interpreter looks for rings of references that nobody holds any more."""

import gc

# Net new objects between two looks: the interpreter's own 700 cost a tenth of a busy process.
OBJECTS_BETWEEN_LOOKS = 20_000


def look_seldom() -> None:
    """Set what was made so far aside for good, and look among the rest now and then.

    What works on lines and requests leaves no rings behind: counted references free nearly all of
    it at once, and a look only costs time.
    """
    gc.freeze()
    gc.set_threshold(OBJECTS_BETWEEN_LOOKS)
