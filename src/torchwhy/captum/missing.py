"""Names of Captum without a counterpart: they can be imported, and say what would do when they are used."""

from __future__ import annotations

from collections.abc import Mapping


class MissingFromCaptum:
    """What there is none of here."""

    instead = ""

    def __init__(self, *args: object, **kwargs: object) -> None:
        name = f"{type(self).__module__.removeprefix('torchwhy.')}.{type(self).__name__}"
        raise NotImplementedError(f"{name} has no counterpart in torchwhy: {self.instead}")


def missing_classes(package: str, names: Mapping[str, str]) -> dict[str, type[MissingFromCaptum]]:
    """Return a class for each name, which refuses to be made.

    Args:
        package: of Captum.
        names: what would do instead, by name.
    """
    module = f"torchwhy.captum.{package}"
    return {
        n: type(
            n,
            (MissingFromCaptum,),
            {"instead": s, "__module__": module, "__doc__": f"``captum.{package}.{n}`` has no counterpart here: {s}."},
        )
        for n, s in names.items()
    }
