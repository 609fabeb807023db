"""Joins that are there from the start, on the two samples: to look at, to run, to change."""

from typing import Any
from urllib.parse import urlencode


def _ready(join_id: str, name: str, description: str, **written: str) -> dict[str, Any]:
    """One of them; ``written`` is the builder's form, two underscores standing for a hyphen."""
    draft = urlencode([(key.replace("__", "-"), value) for key, value in written.items()])
    return {"_id": join_id, "name": name, "description": description, "draft": draft, "saved_at": None}


READY = [
    _ready(
        "orders-by-status",
        "Users with their orders of one status",
        "Each user of the shop who has any, with these orders in a list, the dearest first.",
        database="shop",
        source="users",
        joins__0__source="orders",
        joins__0__on__0__local="_id",
        joins__0__on__0__foreign="userId",
        joins__0__kind="inner",
        joins__0__filters__0__field="status",
        joins__0__filters__0__value="{status}",
        joins__0__sort__0__field="amount",
        joins__0__sort__0__direction="-1",
    ),
    _ready(
        "users-without-orders",
        "Users who never ordered",
        "The users of the shop of whom there is no order.",
        database="shop",
        source="users",
        joins__0__source="orders",
        joins__0__on__0__local="_id",
        joins__0__on__0__foreign="userId",
        joins__0__kind="anti",
    ),
    _ready(
        "reviews-with-products",
        "Reviews with their products",
        "Reviews name their product by an ObjectId written as text: the left key is converted.",
        database="shop",
        source="reviews",
        joins__0__source="products",
        joins__0__on__0__local="productId",
        joins__0__on__0__foreign="_id",
        joins__0__on__0__cast="objectId",
        joins__0__shape="first",
        joins__0__name="product",
    ),
    _ready(
        "flights-with-planes",
        "Flights of one airline with their planes",
        "Every flight from New York in 2013 of the airline, with what is known of its plane.",
        database="flights",
        source="flights",
        filters__0__field="carrier",
        filters__0__value="{carrier}",
        joins__0__source="planes",
        joins__0__on__0__local="tailnum",
        joins__0__on__0__foreign="tailnum",
        joins__0__shape="first",
        joins__0__name="plane",
    ),
    _ready(
        "flights-weather",
        "Late flights with the weather at departure",
        "Flights that left at least so many minutes late, with the weather of that hour at their airport.",
        database="flights",
        source="flights",
        filters__0__field="dep_delay",
        filters__0__operator="gte",
        filters__0__value="{minutes}",
        joins__0__source="weather",
        joins__0__on__0__local="origin",
        joins__0__on__0__foreign="origin",
        joins__0__on__1__local="time_hour",
        joins__0__on__1__foreign="time_hour",
        joins__0__shape="first",
        joins__0__name="weather",
    ),
    _ready(
        "flights-three",
        "Flights with plane and destination",
        "Three collections: the flights to one airport, each with its plane and with the airport itself.",
        database="flights",
        source="flights",
        filters__0__field="dest",
        filters__0__value="{airport}",
        joins__0__source="planes",
        joins__0__on__0__local="tailnum",
        joins__0__on__0__foreign="tailnum",
        joins__0__shape="first",
        joins__0__name="plane",
        joins__1__source="airports",
        joins__1__on__0__local="dest",
        joins__1__on__0__foreign="faa",
        joins__1__shape="first",
        joins__1__name="destination",
    ),
]
