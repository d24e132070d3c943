"""`tunesmith classify`: ask a classifier."""

from __future__ import annotations

from typing import Annotated

import typer


def classify(
    name: Annotated[str, typer.Argument(help="A run, a checkpoint of one, or an exported folder.")],
    given: Annotated[
        list[str], typer.Argument(help="Texts, or paths of images if the model reads these.")
    ],
    top: Annotated[int, typer.Option(min=1, help="Show so many labels of each.")] = 1,
) -> None:
    """Name the class of texts or images, with how likely it is."""
    from tunesmith.cli.tables import table
    from tunesmith.inference.classify import classify as classify_all
    from tunesmith.models.chat import find_subject
    from tunesmith.models.classes import load_classifier

    found = classify_all(load_classifier(find_subject(name)), given)
    rows = [
        [one if not place else "", label, f"{share:.1%}"]
        for one, shares in zip(given, found, strict=True)
        for place, (label, share) in enumerate(list(shares.items())[:top])
    ]
    table(["", "label", "likely"], rows)
