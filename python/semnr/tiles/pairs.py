"""Images of several sources that belong together: denoised, noisy, reference, as people name their files."""

from __future__ import annotations

import dataclasses
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .decoding import IMAGE_SUFFIXES
from .folder import FolderSource
from .matching import ACCEPTED, AmbiguousNames, Name, Rule, infer, parse, same
from .over import Over
from .planes import PlaneSource
from .source import Recipe, TileKey, TileSource, length_of

ORDER = "order"
_ALL = 10_000  # tiles: sources with more are paired by name where a sample of their names is the same
_SAMPLE = 100
_EXAMPLES = 2  # names that a hint shows
_SAID = {"noisy": "noisy image", "reference": "reference", "noisy_2": "second noisy frame"}
_SAID |= {"noisy_3": "third noisy frame"}

Pairs = dict[str, str]  # id of the one source -> id of the other


@dataclass(frozen=True)
class Unpaired:
    """Images of one source that have no partner in another, and what to say of them in one line."""

    role: str  # of the other source: "noisy", "reference", ...
    candidate: tuple[str, ...]  # ids that lack a partner
    other: tuple[str, ...]
    hint: str


@dataclass(frozen=True)
class Paired:
    """Sources whose tiles that belong together have the same id.

    Attributes
    ----------
    candidate : TileSource
        What is scored. Its tiles have the ids of the noisy images (of the references, where there are none), unless
        it is a plan, a Zarr, KLARF, ...: a source that names its sites itself.
    others : dict of str to TileSource
        By role, under the ids of `candidate`.
    rules : dict of str to str
        How the images of each role were paired: "the same names", "{name}_noisy = {name}_dn", "order".
    unpaired : tuple of Unpaired
        What was left over, an entry a role.
    """

    candidate: TileSource
    others: dict[str, TileSource]
    rules: dict[str, str]
    unpaired: tuple[Unpaired, ...]

    @property
    def remarks(self) -> tuple[str, ...]:
        """One line on each rule that is not "the same names", one on what was left over of each role."""
        told = [
            f"each {_SAID[role]} was paired with its denoised image by {quoted(rule)}"
            for role, rule in self.rules.items()
            if rule != _SAME
        ]
        return (*told, *(left.hint for left in self.unpaired))


_SAME = "the same names"


@dataclass(frozen=True)
class _Matched:
    """Pairs of one other source with the candidate; None: by equal ids, whatever there are."""

    rule: str
    pairs: Pairs | None
    alone: tuple[str, ...] = ()
    other_alone: tuple[str, ...] = ()


def pair(candidate: TileSource, others: Mapping[str, TileSource], match: str | Sequence[str] | None = None) -> Paired:
    """Give tiles that belong together one id.

    The same relative names first (whatever their suffixes are); then names that differ in capitals only; then names
    that differ by a text that is the same for all (`_denoised`, `clean_`, `dn-`, a folder), which is found by itself.
    KLARF and plans are also tried by the names of their images. Two images alone are a pair.

    Parameters
    ----------
    candidate : TileSource
        The denoised images.
    others : mapping of role to TileSource
        "noisy", "reference", "noisy_2", "noisy_3". One that is `candidate` itself has its pairs already.
    match : str or sequence of str, optional
        "{name}_noisy.tif={name}_dn.tif", of the noisy images, or of the references where there is no noisy one: see
        `semnr.tiles.matching`. With a role before it, "reference:{name}_clean={name}_dn", it holds for that source;
        "order": the n-th image is the partner of the n-th one. Several may be given; the first that fits counts.

    Returns
    -------
    Paired

    Raises
    ------
    ValueError
        No image has a partner; names that fit in several ways; stacks of different lengths; a bad `match`: what it
        was, two examples, and what is accepted.
    """
    asked = _asked(match, tuple(others))
    sized = length_of(candidate) is not None
    matched = {
        role: _matched(candidate, other, role, asked.get(role))
        for role, other in others.items()
        if other is not candidate and sized and length_of(other) is not None
    }
    witness = next((role for role in ("noisy", "reference", *matched) if role in matched), None)
    known: TileSource = candidate
    ids: Pairs = {}
    if witness is not None and isinstance(candidate, FolderSource):
        known, ids = _as_witness(candidate, others[witness], matched[witness])
    known_as = {role: known if other is candidate else other for role, other in others.items()}
    for role, pairing in matched.items():
        if ids or pairing.pairs is not None:
            known_as[role] = _as_candidate(others[role], pairing, ids, role)
    return Paired(
        known,
        known_as,
        {role: pairing.rule for role, pairing in matched.items()},
        tuple(
            Unpaired(
                role,
                pairing.alone,
                pairing.other_alone,
                _hint(candidate, others[role], role, pairing),
            )
            for role, pairing in matched.items()
            if pairing.alone or pairing.other_alone
        ),
    )


def _as_witness(candidate: FolderSource, witness: TileSource, matched: _Matched) -> tuple[TileSource, Pairs]:
    """The candidate under the ids of the witness, with its columns where it has any; and the ids that changed."""
    ids: Pairs = {}
    if matched.pairs is not None:
        taken = {key.tile for key in witness}
        ids = {tile: f"{tile} (denoised)" for tile in matched.alone if tile in taken} | matched.pairs
    describes = not isinstance(witness, FolderSource)
    if not ids and not describes:
        return candidate, ids
    return Renamed(candidate, ids, matched.rule, witness if describes else None), ids


def _as_candidate(other: TileSource, matched: _Matched, ids: Pairs, role: str) -> TileSource:
    """The other source under the ids by which the candidate is known; what has no partner has an id of its own."""
    pairs = {tile: tile for tile in ids} if matched.pairs is None else matched.pairs
    here = {theirs: ids.get(ours, ours) for ours, theirs in pairs.items()}
    taken = {*here.values(), *(ids.get(tile, tile) for tile in matched.alone)}
    for tile in matched.other_alone:
        here[tile] = f"{tile} ({role})" if tile in taken else tile
    return Renamed(other, {tile: name for tile, name in here.items() if tile != name}, matched.rule)


def _asked(match: str | Sequence[str] | None, roles: tuple[str, ...]) -> dict[str, list[Rule | str]]:
    """What `match` asks for, by role; a role that nothing is said of is not in it."""
    rules: dict[str, list[Rule | str]] = {}
    for text in (match,) if isinstance(match, str) else match or ():
        if not isinstance(text, str):
            raise TypeError(f"match is {type(text).__name__}; accepted: {ACCEPTED}")
        role, colon, rest = text.partition(":")
        if not colon or role not in _SAID:
            role, rest = next((name for name in _SAID if name in roles), "noisy"), text
        if role not in roles:
            raise ValueError(
                f"match is {text!r}, and there is no {role}; accepted with: {', '.join(roles) or 'a second source'}"
            )
        rules.setdefault(role, []).append(ORDER if rest.strip() == ORDER else parse(rest, IMAGE_SUFFIXES))
    return rules


def _matched(candidate: TileSource, other: TileSource, role: str, asked: Sequence[Rule | str] | None) -> _Matched:
    _same_length(candidate, other, role)
    if asked is None and max(len(candidate), len(other)) > _ALL and _sampled_alike(candidate, other):
        return _Matched(_SAME, None)
    ours, theirs = (list(source) for source in (candidate, other))
    pairs, rule = _by_rules(ours, theirs, candidate, other, role, asked)
    if not pairs:
        raise ValueError(_nothing(candidate, other, role, ours, theirs))
    renamed = any(ours[a].tile != theirs[b].tile for b, a in pairs.items())
    if not asked:  # what the rule leaves over may still have equal names
        taken = set(pairs.values())
        left = [a for a in range(len(ours)) if a not in taken]
        rest = [b for b in range(len(theirs)) if b not in pairs]
        more = same([theirs[b].tile for b in rest], [ours[a].tile for a in left])
        pairs |= {rest[b]: left[a] for b, a in more.items()}
    taken = set(pairs.values())
    return _Matched(
        rule,
        {ours[a].tile: theirs[b].tile for b, a in pairs.items()} if renamed or asked else None,
        tuple(key.tile for a, key in enumerate(ours) if a not in taken),
        tuple(key.tile for b, key in enumerate(theirs) if b not in pairs),
    )


def _by_rules(
    ours: list[TileKey],
    theirs: list[TileKey],
    candidate: TileSource,
    other: TileSource,
    role: str,
    asked: Sequence[Rule | str] | None,
) -> tuple[dict[int, int], str]:
    """(places in the other source -> places in the candidate, the rule)."""
    try:
        for rule in asked or ():
            if rule == ORDER:
                return _in_order(ours, theirs, candidate, other, role), ORDER
            assert isinstance(rule, Rule)
            if pairs := rule.apply(_names(theirs, by_path=True), _names(ours, by_path=True)):
                return pairs, str(rule)
        if asked:
            examples = [_examples([key.path or key.tile for key in keys]) for keys in (theirs, ours)]
            raise ValueError(
                f"match '{asked[-1]}' fits no {_SAID[role]} of {other.name} ({examples[0]}) and denoised image of "
                f"{candidate.name} ({examples[1]}); accepted: {ACCEPTED}"
            )
        alone = len(ours) == len(theirs) == 1 and not any(isinstance(s, FolderSource) for s in (candidate, other))
        if alone:
            return {0: 0}, _SAME
        return _found(ours, theirs)
    except AmbiguousNames as error:
        accepted = "" if "; accepted: " in str(error) else "; accepted: a pattern that tells them apart"
        raise ValueError(f"{other.name} ({_SAID[role]}) and {candidate.name}: {error}{accepted}") from error


def _found(ours: list[TileKey], theirs: list[TileKey]) -> tuple[dict[int, int], str]:
    """The pairs that most images are in; of ways that give as many, the simplest."""
    ways: list[tuple[dict[int, int], str]] = []
    enough = min(len(ours), len(theirs)) / 2
    for left, right in _namings(theirs, ours):
        for fold in (False, True):
            pairs = same([name.stem for name in left], [name.stem for name in right], fold=fold)
            ways.append((pairs, _SAME if not fold else "the same names but for capitals"))
            if pairs and len(pairs) >= enough:
                return ways[-1]
    for left, right in _namings(theirs, ours):
        if (inferred := infer(left, right)) is not None:
            ways.append((inferred[1], str(inferred[0])))
            break
    ways.append((_by_last(theirs, ours), "the file's name, whatever its folder"))
    return max(ways, key=lambda way: len(way[0]))


def _namings(left: list[TileKey], right: list[TileKey]) -> Iterator[tuple[list[Name], list[Name]]]:
    """The names that both sides may be known by: ids, and the paths of images where these are other names."""
    seen = []
    for by_path in ((False, False), (True, False), (False, True), (True, True)):
        pair = (_names(left, by_path[0]), _names(right, by_path[1]))
        if pair not in seen and all(len({name.stem for name in names}) == len(names) for names in pair):
            seen.append(pair)
            yield pair


def _names(keys: Sequence[TileKey], by_path: bool) -> list[Name]:
    """By the id, or by the path of the image."""
    names = []
    for key in keys:
        path = posixpath.normpath(key.path) if key.path is not None else key.tile
        names.append(Name(posixpath.splitext(path)[0] if by_path and key.path is not None else key.tile, path))
    return names


def _by_last(left: list[TileKey], right: list[TileKey]) -> dict[int, int]:
    """Equal names of files in folders of other names, where each name is there once."""
    lasts = [[name.stem.rpartition("/")[2] for name in _names(keys, by_path=True)] for keys in (left, right)]
    if any(len(set(names)) < len(names) for names in lasts):
        return {}
    return same(*lasts)


def _in_order(
    ours: list[TileKey], theirs: list[TileKey], candidate: TileSource, other: TileSource, role: str
) -> dict[int, int]:
    if len(ours) != len(theirs):
        raise ValueError(
            f"match is 'order', but {candidate.name} has {len(ours)} images and {other.name} ({_SAID[role]}) "
            f"{len(theirs)}; accepted: as many in both"
        )
    return {place: place for place in range(len(ours))}


def _same_length(candidate: TileSource, other: TileSource, role: str) -> None:
    """A stack has no names: where one is shorter, which image is missing cannot be known."""
    stacks = all(isinstance(source, PlaneSource) and not source.is_cut for source in (candidate, other))
    if stacks and len(candidate) != len(other):
        raise ValueError(
            f"{candidate.name} has {len(candidate)} images and {other.name} ({_SAID[role]}) {len(other)}: images of a "
            "stack have no names, so that nothing says which are missing; accepted: stacks of one length"
        )


def _sampled_alike(candidate: TileSource, other: TileSource) -> bool:
    keys = [key for _, key in zip(range(_SAMPLE), candidate, strict=False)]
    return 2 * sum(other.find(key.tile) is not None for key in keys) >= len(keys)


def _examples(ids: Sequence[str]) -> str:
    return ", ".join(ids[:_EXAMPLES]) + (", ..." if len(ids) > _EXAMPLES else "")


def _nothing(candidate: TileSource, other: TileSource, role: str, ours: list[TileKey], theirs: list[TileKey]) -> str:
    shown = [_examples([key.path or key.tile for key in keys]) for keys in (theirs, ours)]
    order = ", or --match order, the n-th of both" if len(ours) == len(theirs) > 1 else ""
    return (
        f"no {_SAID[role]} of {other.name} ({shown[0]}) has the name of a denoised image of {candidate.name} "
        f"({shown[1]}); accepted: the same names, or --match '{{name}}_noisy={{name}}_dn' with your own words in place "
        f"of _noisy and _dn{order}"
    )


def _hint(candidate: TileSource, other: TileSource, role: str, matched: _Matched) -> str:
    """One line with the counts, two examples of each, and what to try."""
    parts = []
    if matched.alone:
        parts.append(f"{len(matched.alone)} of {candidate.name} have no {_SAID[role]} ({_examples(matched.alone)})")
    if matched.other_alone:
        examples = _examples(matched.other_alone)
        parts.append(f"{len(matched.other_alone)} of {other.name} have no denoised image ({examples})")
    pattern = matched.rule.replace(" = ", "=") if "{" in matched.rule else "{name}_noisy={name}_dn"
    return (
        f"{' and '.join(parts)}; the others are paired by {quoted(matched.rule)}: bring the missing files, or say with "
        f"--match '{pattern}' which names belong together"
    )


def quoted(rule: str) -> str:
    """A rule for people: patterns in quotes."""
    return f"'{rule}'" if "{" in rule else rule


class Renamed(Over):
    """The tiles of another source under other ids.

    Parameters
    ----------
    inner : TileSource
    ids : mapping of str to str
        Id in `inner` -> id here; other ids stay.
    rule : str
        How the ids were found, kept in the run's settings.
    described_by : TileSource, optional
        Columns (die, coordinates) of its tiles of the same id are those of these tiles too, and its layout.
    """

    def __init__(self, inner: TileSource, ids: Pairs, rule: str, described_by: TileSource | None = None) -> None:
        super().__init__(inner)
        self._ids, self._rule, self._described_by = ids, rule, described_by
        self._own = {name: tile for tile, name in ids.items()}
        if described_by is not None:
            self.layout = self.layout or described_by.layout
            self.pixel_nm = self.pixel_nm or described_by.pixel_nm
            self.data_range = self.data_range or described_by.data_range
        if inner.recipe is not None and (described_by is None or described_by.recipe is not None):
            told = {"recipe": inner.recipe, "ids": ids, "rule": rule, "described_by": described_by}
            self.recipe = Recipe(_again, inner.recipe.source, told)

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "paired": self._rule}

    def _outside(self, key: TileKey) -> TileKey:
        key = dataclasses.replace(key, tile=self._ids.get(key.tile, key.tile))
        described = None if self._described_by is None else self._described_by.find(key.tile)
        return key if described is None else dataclasses.replace(key, meta={**described.meta, **key.meta})

    def _inside(self, tile: str) -> str | None:
        """The id that a tile has in the inner source; None where there it is that of another one."""
        return self._own.get(tile, None if tile in self._ids else tile)

    def __iter__(self) -> Iterator[TileKey]:
        return map(self._outside, self._source)

    def find(self, tile: str) -> TileKey | None:
        own = self._inside(tile)
        key = None if own is None else self._source.find(own)
        return None if key is None else self._outside(key)

    def read(self, key: TileKey, role: str = "image") -> np.ndarray:
        return self._source.read(dataclasses.replace(key, tile=self._inside(key.tile) or key.tile), role)

    def only_in(self, role: str) -> Iterator[str]:
        return (self._ids.get(tile, tile) for tile in self._source.only_in(role))


def _again(source: Any, recipe: Recipe, ids: Pairs, rule: str, described_by: TileSource | None) -> TileSource:
    """In another process."""
    return Renamed(recipe.opener(source, **recipe.options), ids, rule, described_by)
