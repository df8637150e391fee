"""What is said of a parameter that cannot be used."""

import difflib
from typing import Any

from pydantic import BaseModel

_WORDS = {"valid integer": "whole number", "valid number": "number", "a valid boolean": "true or false", "valid list": "list"}


def sentence(model: type[BaseModel], error: dict[str, Any]) -> str:
    """One readable sentence for one of pydantic's errors (an entry of `errors()`): the name, the value, what is allowed."""
    if not error["loc"]:
        return str(error["msg"]).removeprefix("Value error, ")
    name = str(error["loc"][0])
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(name, model.model_fields, n=1)
        return f"unknown parameter {name!r}" + (f": did you mean {near[0]!r}?" if near else "")
    if error["type"] == "missing":
        return f"parameter {name} is missing ({model.model_fields[name].description})"
    reason = error["msg"].removeprefix("Value error, ").replace("Input should be", "it must be").split(" after validation")[0]
    reason = reason.replace("String should have", "it must have").replace("List should have", "it must have")
    reason = reason.split(", unable to")[0]
    for theirs, ours in _WORDS.items():
        reason = reason.replace(theirs, ours)
    return f"parameter {name} is {error['input']!r}, but {reason} ({model.model_fields[name].description})"
