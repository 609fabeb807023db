"""Columns of Python values as Arrow arrays, which DuckDB reads without copying row by row."""

import array
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, TypeAlias

import nanoarrow

#: A column: texts, byte strings (both as bytes), or whole numbers.
Column: TypeAlias = "Sequence[bytes] | array.array[int]"

#: The types of the columns, by the first letter of their names.
TEXT, BYTES, NUMBER = "VARCHAR", "BLOB", "BIGINT"


class Batch:
    """Rows as columns. DuckDB reads it like a table, any number of times.

    Args:
        types: the SQL type of each column, ``TEXT``, ``BYTES`` or ``NUMBER``.
        columns: the values of each column. Texts are UTF-8.
    """

    def __init__(self, types: Mapping[str, str], columns: Mapping[str, Column]):
        length = len(next(iter(columns.values())))
        schema = nanoarrow.struct({name: _SCHEMAS[type_]() for name, type_ in types.items()})
        children = [_array(type_, columns[name]) for name, type_ in types.items()]
        self._array = nanoarrow.c_array_from_buffers(schema, length, [None], children=children)

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> Any:
        # DuckDB asks for a stream several times, and consumes each one.
        return nanoarrow.c_array_stream(self._array).__arrow_c_stream__(requested_schema)


_SCHEMAS = {TEXT: nanoarrow.string, BYTES: nanoarrow.binary, NUMBER: nanoarrow.int64}


def _array(type_: str, values: Column) -> Any:
    if isinstance(values, array.array):
        return nanoarrow.c_array_from_buffers(nanoarrow.int64(), len(values), [None, values])
    offsets = array.array("i", [0])
    texts: Any = values
    offsets.extend(accumulate(map(len, texts)))
    return nanoarrow.c_array_from_buffers(_SCHEMAS[type_](), len(texts), [None, offsets, b"".join(texts)])
