"""What the subcommands share: JSON output, and options that many of them have."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from ..base.text import printable

Options = argparse.ArgumentParser | argparse._ArgumentGroup  # where options are added
unsaid: list[str] = []  # why output was lost, other than by a reader that went away


def say(text: object = "", *, flush: bool = False) -> None:
    """Print for people: names cannot steer the terminal, and an output that fails cannot undo what was decided."""
    with written_out():
        print(printable(str(text)), flush=flush)


@contextlib.contextmanager
def written_out() -> Iterator[None]:
    """What stdout does not take, and all that follows, goes nowhere; `unsaid` has the reason."""
    try:
        yield
    except OSError as error:
        if not isinstance(error, BrokenPipeError):  # as `head` leaves it
            unsaid.append(error.strerror or str(error))
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def print_json(value: Any) -> None:
    from ..base.jsonable import plain

    say(json.dumps(plain(value), indent=1, allow_nan=False))


def add_output_options(parser: Options) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON for machines")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress")


def add_verbose(parser: Options) -> None:
    """`-v`, for a command that ends in a verdict."""
    parser.add_argument("-v", "--verbose", action="store_true", help="every guardrail with its numbers, and the path")


def add_waivers(parser: Options) -> None:
    """`--waive RULE`, under its older name too."""
    told = "this rule may lack evidence; on the record"
    parser.add_argument("--waive", "--allow-unknown", action="append", default=[], metavar="RULE", help=told)


def add_category(parser: Options) -> None:
    """`--category NAME`, which chooses among the profiles of a file of rules."""
    told = "with --rules: what the images show, by name or by the folder of a run of `semnr classify predict`"
    parser.add_argument("--category", metavar="NAME", help=told)


def add_registration(parser: Options) -> None:
    """`--register`."""
    told = "lay each reference onto its noisy image first (affine map, gain, offset; the border is left out)"
    parser.add_argument("--register", action="store_true", help=told)


def add_settings(parser: Any, kind: str, **options: Any) -> None:
    """`--set` of pairs, which may be given again."""
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar=kind, **options)


def settings(pairs: Sequence[str], kind: str) -> list[tuple[str, str]]:
    """["sigma=1.5"] as [("sigma", "1.5")]; `kind` names the form that is accepted."""
    rows = []
    for pair in pairs:
        name, separator, text = pair.partition("=")
        if not separator or not name:
            raise ValueError(f"--set is {pair!r}; accepted: {kind}")
        rows.append((name, text))
    return rows


def parameters(pairs: list[str]) -> dict[str, Any]:
    """["sigma=1.5", "wavelet=db2"] as keyword arguments."""
    values: dict[str, Any] = {}
    for name, text in settings(pairs, "NAME=VALUE"):
        try:
            values[name] = int(text)
        except ValueError:
            try:
                values[name] = float(text)
            except ValueError:
                values[name] = text
    return values


def add_framing(parser: Any, more: str = "") -> None:
    """What of each image counts; `more` is added to the help."""
    box = "auto: without the data bar; or left,top,right,bottom in pixels, right and bottom excluded"
    parser.add_argument("--crop", metavar="BOX", help=box + more)
    parser.add_argument("--mask", metavar="FILE", help="an image that is 0 where pixels do not count" + more)
