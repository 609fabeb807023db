"""A baseline that runs as a script: PyMongoArrow reads flights and planes, and DuckDB joins them into a file of JSON.

It prints the seconds without the imports. With exit status 3, PyMongoArrow is not installed.
"""

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

try:
    import duckdb
    import pyarrow as pa
    import pymongoarrow.api as arrow
    from pymongo import MongoClient
except ImportError:
    sys.exit(3)


def main(uri: str) -> None:
    database: Any = MongoClient(uri).flights
    database.command("ping")
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        flights, planes = (_table(database[name]) for name in ("flights", "planes"))
        joined = duckdb.connect()
        joined.register("f", flights)
        joined.register("p", planes)
        joined.execute("CREATE VIEW rows AS SELECT f.*, p AS plane FROM f JOIN p ON f.tailnum = p.tailnum")
        joined.execute("SET VARIABLE target = $1", [str(Path(folder) / "rows.json")])
        joined.execute("COPY rows TO (getvariable('target'))")
        print(time.perf_counter() - began)


def _table(collection: object) -> "pa.Table":
    """All documents, with ``_id`` as text, because DuckDB does not know the type."""
    table = arrow.find_arrow_all(collection, {})
    place = table.schema.get_field_index("_id")
    ids = table.column("_id")
    plain = pa.chunked_array([pa.array([each.as_py().__str__() for each in chunk]) for chunk in ids.chunks])
    return table.set_column(place, "_id", plain)


if __name__ == "__main__":
    main(sys.argv[1])
