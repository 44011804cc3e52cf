"""One sentence per item for a person. Pure."""

from services.runtime.scenario import EVENT_NUMBERS

_DID = {
    "view": "looked at", "click": "chose", "play": "played", "like": "liked", "cart": "put in your cart",
    "purchase": "bought", "rating": "rated", "tag": "tagged", "follow": "followed",
}  # fmt: skip
_VERBS = {EVENT_NUMBERS[name]: verb for name, verb in _DID.items()}

_BY_SOURCE = {
    "vector": "Close to what you chose lately",
    "collaborative": "Often chosen by people with a similar history",
    "popular": "Popular now",
    "new": "New in the catalogue",
    "included": "You asked for it",
}


def reason(source: str, category: str, attended_title: str, attended_kind: int) -> str:
    """Why an item is shown.

    `attended_title` and `attended_kind` (a number of EventKind) tell the event of the user's history that speaks most
    for the item; an empty title: none is known. `category` is the item's first one, empty for none.
    """
    if attended_title and attended_kind in _VERBS:
        return f"Because you {_VERBS[attended_kind]} {attended_title}"
    sentence = _BY_SOURCE.get(source, "Chosen for you")
    return f"{sentence} in {category}" if category and source in ("popular", "new") else sentence
