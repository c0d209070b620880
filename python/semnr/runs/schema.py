"""The columns of a run's parts and their types: the same in every part, so that other readers open them as one table.

A column is int64 where every value is an integer, double where every value is a number, else text. Where a later row
needs a wider type, or brings a column, the parts before it are written again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..tiles.journal import plain

# types of columns that hold no value yet; all others are figures
EMPTY = {
    **dict.fromkeys(("tile", "path", "status", "reason", "lot_id", "wafer_id"), "text"),
    **dict.fromkeys(("evidence_boxes", "frames_problem", "pair_note", "reference_problem"), "text"),
    **dict.fromkeys(("category", "category_likeliest"), "text"),
    "index": "int",
}
_WHOLE = 2**63  # integers beyond are text


class Schema:
    """Grows with the rows and parts that it is shown; `table` and `fitted` give tables that have it."""

    def __init__(self) -> None:
        self._kinds: dict[str, str | None] = {}  # "bool", "int", "double", "text"; None: no value yet

    def learn(self, rows: Iterable[Mapping[str, Any]]) -> None:
        for row in rows:
            for name, value in row.items():
                self._widen(name, _kind(plain(value)))

    def learn_part(self, path: Path) -> None:
        """The same of a part, from its metadata."""
        import pyarrow.parquet as pq

        with pq.ParquetFile(path) as file:
            empty = _empty_columns(file)
            for at, field in enumerate(file.schema_arrow):
                self._widen(field.name, None if at in empty else _kind_of(field.type))

    def only(self, names: Iterable[str]) -> Schema:
        """Of these columns, those that are here."""
        part = Schema()
        part._kinds = {name: self._kinds[name] for name in names if name in self._kinds}
        return part

    def arrow(self) -> Any:
        import pyarrow as pa

        types = {"bool": pa.bool_(), "int": pa.int64(), "double": pa.float64(), "text": pa.string()}
        return pa.schema([(name, types[kind or EMPTY.get(name, "double")]) for name, kind in self._kinds.items()])

    def table(self, rows: list[dict[str, Any]]) -> Any:
        """The rows as a pyarrow Table of this schema."""
        import pyarrow as pa

        schema = self.arrow()
        return pa.table([_array([row.get(f.name) for row in rows], f.type) for f in schema], schema=schema)

    def fitted(self, table: Any) -> Any:
        """A table of an earlier schema in this one."""
        import pyarrow as pa

        schema = self.arrow()
        none = [None] * table.num_rows
        columns = []
        for field in schema:
            column = table.column(field.name) if field.name in table.column_names else None
            if column is None or column.type != field.type:
                columns.append(_array(none if column is None else column.to_pylist(), field.type))
            else:
                columns.append(column)
        return pa.table(columns, schema=schema)

    def _widen(self, name: str, kind: str | None) -> None:
        before = self._kinds.setdefault(name, kind)
        if before is None or kind is None or before == kind:
            self._kinds[name] = before or kind
        else:
            self._kinds[name] = "double" if {before, kind} == {"int", "double"} else "text"


def _kind(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int" if -_WHOLE <= value < _WHOLE else "text"
    return "double" if isinstance(value, float) else "text"


def _kind_of(type_: Any) -> str | None:
    import pyarrow as pa

    if pa.types.is_null(type_):
        return None
    if pa.types.is_boolean(type_):
        return "bool"
    if pa.types.is_integer(type_):
        return "int"
    return "double" if pa.types.is_floating(type_) else "text"


def _empty_columns(file: Any) -> set[int]:
    """The columns of a part that hold no value, where their statistics say so."""
    metadata = file.metadata
    if metadata.num_columns != len(file.schema_arrow):  # lists and the like, of earlier versions
        return set()
    empty = set(range(metadata.num_columns))
    for group in (metadata.row_group(at) for at in range(metadata.num_row_groups)):
        known = ((at, group.column(at).statistics) for at in empty)
        empty = {at for at, s in known if s is not None and s.has_null_count and s.null_count == group.num_rows}
    return empty


def _array(values: list[Any], kind: Any) -> Any:
    import pyarrow as pa

    as_kind: Any = _text if kind == pa.string() else float if kind == pa.float64() else plain
    return pa.array([None if value is None else as_kind(value) for value in values], kind)


def _text(value: Any) -> str:
    """As text that Parquet holds: bytes of a file's name that are no UTF-8 are escaped."""
    return str(plain(value)).encode("utf-8", "backslashreplace").decode()
