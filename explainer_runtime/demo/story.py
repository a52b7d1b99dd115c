"""The demo's page: how sure to be, one image with an answer from each method, one that the network gets
wrong, more images, the numbers, and where all of it comes from."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from explainer_runtime import __version__
from explainer_runtime.demo import checks
from explainer_runtime.demo.checks import SAMPLES
from explainer_runtime.demo.network import PARAMETERS
from explainer_runtime.demo.questions import ENOUGH, NEAREST, SPECS, Question
from explainer_runtime.demo.report import HEAD, Outcome, line
from explainer_runtime.demo.roads import Road
from explainer_runtime.render import Panel, page
from explainer_runtime.render.cards import drawn, view
from explainer_runtime.views import Card, View, chance, name, one_scale

_SIZE = 336
"""Pixels of a panel: more than are shown, so that outlines stay sharp on dense screens."""


def html(outcome: Outcome, out: Path) -> str:
    """The page; `out` is the directory that its commands name."""
    roads = outcome.roads
    seen = one_scale(_noted(road, outcome) for road in roads)
    shown = [drawn(one, outcome.inputs, _SIZE) for one in seen]
    last = len(outcome.x) - 1
    more = [
        page.section(
            f"{road.question.asked} For the other images",
            page.prose(one.idea),
            page.gallery(cards[1:last]),
        )
        for road, one, cards in zip(roads, seen, shown, strict=True)
        if road.question in (NEAREST, ENOUGH) and last > 1
    ]
    return page.document(
        "Why does the network say so?",
        f"A small network sorts pictures of clothes. Here are {len(outcome.x)} of them and what explains its "
        "answers, fetched from running servers and put to the served network again.",
        page.section("How sure to be", page.terms(_sure(outcome))),
        page.section(
            f"One image, {len(roads)} answers",
            page.prose(page.reading(cards[0] for cards in shown)),
            _answers(roads, shown, 0),
        ),
        *([_wrong(outcome, shown)] if last else []),
        *more,
        page.section("What each answer says, and when it would not hold", *_meanings(roads, seen)),
        page.section(
            "The numbers",
            page.table(HEAD, map(line, roads)),
            page.prose(_CHECKED),
            *(page.prose(f"Failed: {failure}.") for failure in outcome.failures),
        ),
        page.section("Where it comes from", page.terms(_origin(outcome)), *map(_settings, SPECS)),
        page.section("Do it again", *_again(shlex.quote(str(out)))),
    )


_CHECKED = (
    "Found is what the explainer says; holds is what was seen when the network was asked again: the served "
    "one about every image that was made or shown, and its copy in the demo's own process about "
    f"{SAMPLES:,} freshly masked images for every anchor; precisions on this page are the shares among "
    "those, not the search's own. L1 is all changes of an image added up, black to white being 1; its median "
    "is that of the images with an answer. Seconds, calls of the network and rows put to it are for all "
    "images in one request, sent over REST and over gRPC; the two answers must be equal to the last bit."
)


# --- how sure to be ---------------------------------------------------------------------------------------


def _sure(outcome: Outcome) -> dict[str, str]:
    one = outcome.network
    return {
        "The network": f"{PARAMETERS:,} parameters, trained on {one.trained:,} images. It is right about "
        f"{round(one.accuracy * one.tested):,} of {one.tested:,} test images ({one.accuracy:.0%}). An "
        "explanation says why it answers so, not whether that is right.",
        "What found means": "Where an answer shows a picture of its own, the network itself, asked last, "
        "gave that the class which stands there; anchors were proven by draws, attributions add up. All of "
        f"it was asked again for this page: {_count(outcome, 'valid')} of {_count(outcome, 'found')} hold.",
        "A second network": _followed(outcome),
        "What was hidden, and how": _hidden(outcome),
        "Empty anchors": _empty(outcome),
        "When it would not hold": "Of another network, of this one trained again, of the same image after a "
        "change, nothing is said here. What each method leaves open stands below the answers.",
    }


def _followed(outcome: Outcome) -> str:
    changes = _road(outcome, NEAREST)
    if changes is None or changes.followed is None:
        return ""
    follows, of = changes.followed
    return (
        "Another one, of another shape, trained apart on the same images and right about "
        f"{outcome.second.accuracy:.0%} of the test images, gives {outcome.agrees} of the {len(outcome.x)} "
        f"images the same class. Of the smallest changes that turn the class here it follows {follows} of "
        f"{of}. So a change shows where this network draws its line, and not what makes a sandal or a shirt. "
        "What the second one sees stands on each card, and how often it agrees in the numbers below."
    )


def _hidden(outcome: Outcome) -> str:
    held = _road(outcome, ENOUGH)
    if held is None or held.precision is None or not held.elsewhere:
        return ""
    others = "; ".join(
        f"with {what} in its place, between {chance(share.min())} and {chance(share.max())}"
        for what, share in held.elsewhere.items()
    )
    return (
        "Anchors were sought with hidden tiles in the mean grey of the image. In fresh draws they keep the "
        f"class with a share of {chance(held.precision.min())} or more; {others}. An anchor holds the class "
        "for the hiding it was sought with, and may not with another."
    )


def _empty(outcome: Outcome) -> str:
    held = _road(outcome, ENOUGH)
    empty = 0 if held is None else int((held.found & (held.explanation["size"] == 0)).sum())
    return (
        f"For {empty} of {len(outcome.x)} images nothing in particular holds the class: it stays whatever is "
        "hidden. That is called an empty, or vacuous, anchor, and explains nothing of the image."
        if empty
        else ""
    )


def _count(outcome: Outcome, what: str) -> int:
    return sum(int((getattr(road, what) & road.found).sum()) for road in outcome.roads)


def _road(outcome: Outcome, question: Question) -> Road | None:
    return next((road for road in outcome.roads if road.question == question), None)


# --- answers ----------------------------------------------------------------------------------------------


def _noted(road: Road, outcome: Outcome) -> View:
    """What is to be seen of a road, with what was seen when others were asked."""
    explanation = road.explanation
    if road.precision is not None:  # the search's own are those by which it chose
        arrays = {**explanation.arrays, "precision": road.precision}
        explanation = replace(explanation, arrays=arrays)
    seen = view(explanation, outcome.x, outcome.inputs)
    cards = [
        replace(card, note=f"{card.note} {_others(road, row, outcome)}".strip()) if card.found else card
        for row, card in enumerate(seen.cards)
    ]
    return replace(seen, cards=tuple(cards))


def _others(road: Road, row: int, outcome: Outcome) -> str:
    said = []
    if road.second is not None:
        sees = name(int(road.second[row]), outcome.inputs)
        follows = (made := checks.made(road.explanation)) is not None and road.second[row] == made[1][row]
        said.append(f"A second network {'agrees' if follows else 'does not agree'}: it sees {sees}.")
    if road.precision is not None:
        shares = ", ".join(f"with {what} {chance(share[row])}" for what, share in road.elsewhere.items())
        said.append(f"Precision with other things where it was hidden: {shares}." if shares else "")
    if not road.valid[row]:
        said.append("It did not hold when the network was asked again.")
    return " ".join(said)


def _answers(roads: Sequence[Road], shown: Sequence[list[Card[Panel]]], row: int) -> str:
    return page.gallery([cards[row] for cards in shown], [road.question.asked for road in roads])


def _wrong(outcome: Outcome, shown: Sequence[list[Card[Panel]]]) -> str:
    """The last image, which the network gets wrong."""
    row, road = len(outcome.x) - 1, outcome.roads[0]
    taken = name(int(road.explanation["original_class"][row]), outcome.inputs)
    return page.section(
        "An image that it gets wrong",
        page.prose(
            f"This is test image {outcome.indices[row]:,}, labelled {outcome.labels[row]}; the network says "
            f"{taken}. Nothing below tells that it is wrong: what is explained is its answer, right or not."
        ),
        _answers(outcome.roads, shown, row),
    )


def _meanings(roads: Sequence[Road], seen: Sequence[View]) -> list[str]:
    """A paragraph a method, once."""
    said: dict[str, str] = {}
    for one in seen:
        said.setdefault(one.title, f"{one.idea} Found: {one.found} Limits: {one.limits}")
    return [page.terms(said)]


# --- where it comes from ----------------------------------------------------------------------------------


def _origin(outcome: Outcome) -> dict[str, str]:
    where = ", ".join(map(str, outcome.indices))
    return {
        "made on": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "made by": f"explainer_runtime {__version__}, in {outcome.seconds:.0f} seconds",
        "network": f"SHA-256 of its weights {outcome.network.digest}",
        "second network": f"SHA-256 of its weights {outcome.second.digest}",
        "images": "Fashion-MNIST (Xiao, Rasul, Vollgraf 2017; MIT License), the first "
        f"{outcome.network.trained:,} training and {outcome.network.tested:,} test images, from black at "
        f"{outcome.inputs.low:g} to white at {outcome.inputs.high:g}; shown are test images {where}",
        **{f"explainer {called}": f"SHA-256 {digest}" for called, digest in outcome.digests.items()},
    }


def _settings(explainer: str) -> str:
    return page.details(f"Settings of {explainer}", SPECS[explainer].model_dump(mode="json"))


def _again(out: str) -> list[str]:
    return [
        page.prose("All of this, with the servers left running:"),
        page.code(f"explainer-runtime demo --out {out} --keep"),
        page.prose("One explainer beside its network, asked about one image from another terminal:"),
        page.code(f"explainer-runtime serve {out}/fashion-cf --model {out}/fashion-cnn.keras"),
        page.code(
            "curl -s localhost:8080/v2/models/fashion-cf/explain \\\n"
            f"  -H 'content-type: application/json' -d @{out}/request.json"
        ),
        page.prose("Without a server, from a request (or a picture of 28 by 28 pixels) to a page:"),
        page.code(
            f"explainer-runtime explain {out}/fashion-cf --model {out}/fashion-cnn.keras \\\n"
            f"  --input {out}/request.json --out explained.html"
        ),
    ]
