"""Which names of two lists belong together: the same ones, or by a pattern, given or found in the names themselves.

A rule is two patterns such as `{name}_noisy = {name}_dn`. What stands in braces is the same on both sides and is what
tells one image from another; `*` is anything; all other text is the same in every name of its side. A pattern that ends
with the suffix of an image (`.tif`) is held against names with their suffix, any other against names without it. Where
neither pattern has a `/`, they are held against the file's name, and both files lie in folders of one name.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cached_property
from typing import NamedTuple

_PART = re.compile(r"\{([^{}]*)\}|(\*)")
# what a name is made of: a number, a word (also in CamelCase), a single sign
_TOKEN = re.compile(r"\d+|[A-Z]?[^\W\d_A-Z]+|[A-Z]+(?![^\W\d_A-Z])|.", re.DOTALL)
_SEPARATORS = " _-.+~()[]/"
_LOOKED_AT = 16  # names of the left side that are laid beside names of the right side, to see what differs
_BESIDE = 400  # of the right side, at most, for each of them
_GOLDEN = (5**0.5 - 1) / 2
_TRIED = 16  # rules, the most frequent ones, that are held against all names
_NUMBERS = re.compile(r"\d+")

ACCEPTED = (
    "two patterns such as '{name}_noisy.tif={name}_dn.tif', first of the noisy image (or the reference), then of the "
    "denoised one, with the same {placeholders}; * is anything; or 'order' for lists of one length"
)


class Name(NamedTuple):
    """A file's name below its folder, without its suffix and with it."""

    stem: str
    path: str


class AmbiguousNames(ValueError):
    """Names that belong together in more than one way."""


@dataclass(frozen=True)
class Pattern:
    """Text with {placeholders}."""

    text: str
    suffixes: tuple[str, ...] = ()

    @cached_property
    def placeholders(self) -> tuple[str, ...]:
        return tuple(match[1] for match in _PART.finditer(self.text) if match[2] is None)

    @cached_property
    def _regex(self) -> re.Pattern[str]:
        parts, end = [], 0
        for match in _PART.finditer(self.text):
            parts += [re.escape(self.text[end : match.start()]), ".*?" if match[2] else "(.+?)"]
            end = match.end()
        return re.compile("".join([*parts, re.escape(self.text[end:])]), re.DOTALL)

    @cached_property
    def _with_suffix(self) -> bool:
        return self.text.lower().endswith(self.suffixes) if self.suffixes else False

    def key(self, name: Name, whole: bool) -> tuple[str, ...] | None:
        """What the placeholders hold, in the order of their names; None where the name is another.

        whole: hold the pattern against the path; else against the file's name, and the folder is part of the key.
        """
        text = name.path if self._with_suffix else name.stem
        folder, _, last = text.rpartition("/")
        fitted = self._regex.fullmatch(text if whole else last)
        if fitted is None:
            return None
        values = [value for _, value in sorted(zip(self.placeholders, fitted.groups(), strict=True))]
        return tuple(values) if whole else (folder, *values)


@dataclass(frozen=True)
class Rule:
    """Two patterns, of the left and of the right side."""

    left: Pattern
    right: Pattern

    def __str__(self) -> str:
        return f"{self.left.text} = {self.right.text}"

    @property
    def option(self) -> str:
        """As the user would give it."""
        return f"{self.left.text}={self.right.text}"

    @cached_property
    def _whole(self) -> bool:
        return "/" in self.left.text + self.right.text

    @cached_property
    def _joined(self) -> bool:
        """Placeholders without text between them: where one ends is not known, and they count as one."""
        return "}{" in self.left.text + self.right.text

    def keys(self, names: Sequence[Name], side: str) -> Iterator[tuple[int, tuple[str, ...]]]:
        """(place, key) of the names that fit the pattern of "left" or "right"."""
        pattern: Pattern = getattr(self, side)
        for place, name in enumerate(names):
            if (key := pattern.key(name, self._whole)) is not None:
                yield place, ("".join(key),) if self._joined else key

    def apply(self, left: Sequence[Name], right: Sequence[Name]) -> dict[int, int]:
        """Places on the left -> places on the right.

        Raises
        ------
        AmbiguousNames
            Two names of one side have the same key.
        """
        by_key = [_by_key(names, self.keys(names, side), getattr(self, side)) for names, side in (
            (left, "left"), (right, "right"),
        )]  # fmt: skip
        return {place: by_key[1][key] for key, place in by_key[0].items() if key in by_key[1]}


def _by_key(
    names: Sequence[Name], keys: Iterable[tuple[int, tuple[str, ...]]], pattern: Pattern
) -> dict[tuple[str, ...], int]:
    places: dict[tuple[str, ...], int] = {}
    for place, key in keys:
        if (first := places.setdefault(key, place)) != place:
            raise AmbiguousNames(
                f"'{pattern.text}' finds the same {_named(pattern)} in {names[first].path} and {names[place].path}"
            )
    return places


def _named(pattern: Pattern) -> str:
    return " and ".join(f"{{{name}}}" for name in sorted(pattern.placeholders))


def parse(text: str, suffixes: tuple[str, ...] = ()) -> Rule:
    """A rule from "LEFT=RIGHT"; `suffixes` are those of images.

    Raises
    ------
    ValueError
        What is wrong with it, and what is accepted.
    """
    sides = [side.strip() for side in text.split("=")]
    if len(sides) != 2 or not all(sides):
        raise ValueError(f"match is {text!r}; accepted: {ACCEPTED}")
    left, right = (Pattern(side, suffixes) for side in sides)
    for pattern in (left, right):
        names = pattern.placeholders
        bare = _PART.sub("", pattern.text)
        if not names or not all(re.fullmatch(r"\w+", name) for name in names) or "{" in bare or "}" in bare:
            raise ValueError(f"match has {pattern.text!r}, without a {{placeholder}} in it; accepted: {ACCEPTED}")
        if len(set(names)) < len(names):
            raise ValueError(f"match has {pattern.text!r}, with one placeholder twice; accepted: {ACCEPTED}")
    if set(left.placeholders) != set(right.placeholders):
        raise ValueError(
            f"match has {_named(left)} on the left and {_named(right)} on the right; accepted: the same on both"
        )
    return Rule(left, right)


def same(left: Sequence[str], right: Sequence[str], *, fold: bool = False) -> dict[int, int]:
    """Places of equal names; `fold`: capitals make no difference, where that leaves each name its own."""
    one, other = ([name.casefold() for name in names] if fold else list(names) for names in (left, right))
    if fold and (len(set(one)) < len(one) or len(set(other)) < len(other)):
        return {}
    at = {name: place for place, name in enumerate(other)}
    return {place: at[name] for place, name in enumerate(one) if name in at}


def infer(left: Sequence[Name], right: Sequence[Name]) -> tuple[Rule, dict[int, int]] | None:
    """The one rule that most names follow, and the pairs that it makes; None where there is none.

    Each side has its own constant text (a suffix, a prefix, a folder); it holds a word, so that numbers, which tell
    images apart, are never taken for it. At least half of the shorter side must follow the rule.

    Raises
    ------
    AmbiguousNames
        Two rules that give the same images different partners.
    """
    for whole in (False, True):
        held = [(rule, pairs) for rule in _candidates(left, right, whole) if (pairs := _held(rule, left, right))]
        if not held:
            continue
        held.sort(key=lambda item: -len(item[1]))
        best, pairs = held[0]
        if 2 * len(pairs) < min(len(left), len(right)):
            continue
        for rival, others in held[1:]:
            _refuse_rival(best, pairs, rival, others, left, right)
        return best, pairs
    return None


def _held(rule: Rule, left: Sequence[Name], right: Sequence[Name]) -> dict[int, int]:
    try:
        pairs = rule.apply(left, right)
    except AmbiguousNames:
        return {}
    constants = [_PART.sub("", pattern.text) for pattern in (rule.left, rule.right)]
    if len(pairs) < 2 and any(c.isdigit() for text in constants for c in text):
        return {}  # one pair is no evidence that a number is the same for all
    return pairs


def _refuse_rival(
    best: Rule, pairs: dict[int, int], rival: Rule, others: dict[int, int], left: Sequence[Name], right: Sequence[Name]
) -> None:
    """Another rule may not give as many images a partner that the best one leaves out."""
    taken = set(pairs.values())
    new = [(a, b) for a, b in others.items() if b not in taken or a not in pairs]
    both = [(a, b) for a, b in new if a in pairs or b in taken]
    if not both or 2 * len(both) < len(pairs):
        return
    a, b = both[0]
    if a in pairs:
        what = f"{left[a].path} has the partners {right[pairs[a]].path} and {right[b].path}"
    else:
        first = next(place for place, partner in pairs.items() if partner == b)
        what = f"{right[b].path} has the partners {left[first].path} and {left[a].path}"
    more = f", and {len(both) - 1} more are in doubt" if len(both) > 1 else ""
    raise AmbiguousNames(f"{what}{more}; accepted: --match '{best.option}' or --match '{rival.option}'")


def _candidates(left: Sequence[Name], right: Sequence[Name], whole: bool) -> list[Rule]:
    """Rules seen where a few names of the left lie beside names of the right, the most frequent first."""
    texts = [sorted({_text(name, whole) for name in names}, key=natural) for names in (left, right)]
    seen: Counter[tuple[str, str]] = Counter()
    for at in _spread(len(texts[0]), _LOOKED_AT):
        middle = at * len(texts[1]) // len(texts[0])
        start = max(0, min(middle - _BESIDE // 2, len(texts[1]) - _BESIDE))
        name = _TOKEN.findall(texts[0][at])
        for other in texts[1][start : start + _BESIDE]:
            if (patterns := _difference(name, _TOKEN.findall(other))) is not None:
                seen[patterns] += 1
    often = max(seen.values(), default=0) / 3  # a rule that all names follow is seen at nearly every name
    return [Rule(Pattern(a), Pattern(b)) for (a, b), count in seen.most_common(_TRIED) if count >= often]


def _text(name: Name, whole: bool) -> str:
    return name.stem if whole else name.stem.rpartition("/")[2]


def _spread(count: int, most: int) -> list[int]:
    """Places spread evenly, in no step that names could have too (every second one a second frame)."""
    return sorted({int(i * _GOLDEN % 1 * count) for i in range(most)}) if count > most else list(range(count))


def natural(text: str) -> str:
    """Sorts a2 before a10."""
    return _NUMBERS.sub(lambda number: number[0].zfill(12), text)


def _difference(one: Sequence[str], other: Sequence[str]) -> tuple[str, str] | None:
    """The patterns of two names that differ by constant texts alone; None where nothing of them is the same, or a
    number may be what differs."""
    keys: list[str] = []  # what is the same, in order
    constants: list[tuple[str, str]] = [("", "")]  # around it, of both sides
    for what, i, j, k, n in SequenceMatcher(None, one, other, autojunk=False).get_opcodes():
        a, b = "".join(one[i:j]), "".join(other[k:n])
        if what != "equal":
            constants[-1] = (constants[-1][0] + a, constants[-1][1] + b)
        elif any(c.isalnum() for c in a):
            keys.append(a)
            constants.append(("", ""))
        else:  # signs alone tell no image from another
            constants[-1] = (constants[-1][0] + a, constants[-1][1] + b)
    if not keys or not all(map(_tells, constants)):
        return None
    _move_signs(keys, constants)
    if any(b[:1].isdigit() for pair in constants[1:] for b in pair) or any(
        a[-1:].isdigit() for pair in constants[:-1] for a in pair
    ):
        return None  # a number that touches a name may be part of it
    if any("{" in text or "}" in text or "*" in text or "=" in text for pair in constants for text in pair):
        return None  # such texts would mean something else in a pattern
    names = ["name"] if len(keys) == 1 else [str(n) for n in range(1, len(keys) + 1)]
    held = [f"{{{name}}}" for name in names]
    left, right = ("".join(
        text for pair, key in zip(constants, [*held, ""], strict=True) for text in (pair[side], key)
    ) for side in (0, 1))  # fmt: skip
    return left, right


def _tells(constant: tuple[str, str]) -> bool:
    """Numbers tell images apart: a constant with a digit has a letter too."""
    text = "".join(constant)
    return not any(c.isdigit() for c in text) or any(c.isalpha() for c in text)


def _move_signs(keys: list[str], constants: list[tuple[str, str]]) -> None:
    """Signs beside a constant belong to it: `{name}_noisy = {name}_dn`, not `{name}noisy = {name}dn`."""
    for at, key in enumerate(keys):
        if any(constants[at + 1]) and (end := len(key.rstrip(_SEPARATORS))) < len(key):
            constants[at + 1] = tuple(key[end:] + text for text in constants[at + 1])  # type: ignore[assignment]
            key = key[:end]
        if any(constants[at]) and (start := len(key) - len(key.lstrip(_SEPARATORS))):
            constants[at] = tuple(text + key[:start] for text in constants[at])  # type: ignore[assignment]
            key = key[start:]
        keys[at] = key
