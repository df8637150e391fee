"""One row of the results: what was measured, of whom, and what was aimed at. Rows are plain dictionaries, kept as JSON."""

from collections.abc import Sequence
from typing import Any

from benchmarks.timing import quotient, spread
from petseg_lib.words import in_words

Row = dict[str, Any]


def build_row(
    name: str,
    title: str,
    unit: str,
    taken: dict[str, list[float]],
    *,
    rivals: Sequence[str] = (),
    limits: Sequence[str] = (),
    higher_is_better: bool = False,
    conditions: str = "",
    targets: Sequence[dict[str, Any]] = (),
    notes: Sequence[str] = (),
) -> Row:
    """A row from the figures of each round.

    Args:
        name: unique, for the JSON file.
        title: what was done, in words.
        unit: of all figures in `taken`.
        taken: figures by who was measured, one a round; what is neither `ours`, rival nor limit is shown beside.
        conditions: sizes, rounds and the like, in words.
        targets: of `target`.
    """
    row: Row = {"name": name, "title": title, "unit": unit, "conditions": conditions}
    row["ours"] = spread(taken["ours"])
    row["rivals"] = {rival: spread(taken[rival]) for rival in rivals}
    row["limits"] = {limit: spread(taken[limit]) for limit in limits}
    row["beside"] = {each: spread(taken[each]) for each in taken if each not in ("ours", *rivals, *limits)}
    row["speed_over"] = {rival: spread(speed_over(taken, rival, higher_is_better)) for rival in rivals}
    row["time_over"] = {limit: spread(time_over(taken, limit, higher_is_better)) for limit in limits}
    return row | {"targets": list(targets), "notes": list(notes)}


def speed_over(taken: dict[str, list[float]], rival: str, higher_is_better: bool = False) -> list[float]:
    """How many times as fast as the rival ours is, round by round: above 1 it is faster."""
    return time_over(taken, rival, not higher_is_better)


def time_over(taken: dict[str, list[float]], limit: str, higher_is_better: bool = False) -> list[float]:
    """How many times the limit's time ours takes, round by round: 1 reaches it."""
    pair = (taken[limit], taken["ours"]) if higher_is_better else (taken["ours"], taken[limit])
    return quotient(*pair)


def target(what: str, values: float | Sequence[float], *, at_least: float | None = None, at_most: float | None = None) -> dict:
    """A target with what was measured beside it: the median, where there are several values."""
    value = spread(values)["median"] if isinstance(values, Sequence) else float(values)
    met = value >= at_least if at_least is not None else value <= at_most
    bound = f"at least {at_least:g}" if at_least is not None else f"at most {at_most:g}"
    return {"what": what, "bound": bound, "value": value, "met": bool(met)}


def in_rounds(rounds: int) -> str:
    return in_words(rounds, "round")
