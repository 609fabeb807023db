"""Saved joins that come with the application, for its two sample databases."""

from typing import Any

from worker_tasks.joins.spec.parameters import AUTO, KEY


def _sample(join_id: str, name: str, description: str, join: dict[str, Any]) -> dict[str, Any]:
    """A sample as the document of a saved join."""
    return {"_id": join_id, "name": name, "description": description, "join": join, "saved_at": None}


def _parameter(name: str) -> dict[str, str]:
    """A parameter with a value that is parsed according to the type of its field."""
    return {KEY: name, "type": AUTO}


_PLANE = {
    "from": "planes",
    "as": "plane",
    "on": [{"local": "tailnum", "foreign": "tailnum"}],
    "shape": "first",
}

SAMPLE_JOINS = [
    _sample(
        "orders-by-status",
        "Users with their orders of one status",
        "Each user of the shop who has any, with these orders in a list, the dearest first.",
        {
            "database": "shop",
            "from": "users",
            "joins": [
                {
                    "from": "orders",
                    "as": "orders",
                    "kind": "inner",
                    "on": [{"local": "_id", "foreign": "userId"}],
                    "match": {"status": _parameter("status")},
                    "sort": [["amount", -1]],
                }
            ],
        },
    ),
    _sample(
        "users-without-orders",
        "Users who never ordered",
        "The users of the shop of whom there is no order.",
        {
            "database": "shop",
            "from": "users",
            "joins": [{"from": "orders", "kind": "anti", "on": [{"local": "_id", "foreign": "userId"}]}],
        },
    ),
    _sample(
        "reviews-with-products",
        "Reviews with their products",
        "Reviews name their product by an ObjectId written as text: the left key is converted.",
        {
            "database": "shop",
            "from": "reviews",
            "joins": [
                {
                    "from": "products",
                    "as": "product",
                    "on": [{"local": "productId", "foreign": "_id", "cast": "objectId"}],
                    "shape": "first",
                }
            ],
        },
    ),
    _sample(
        "flights-with-planes",
        "Flights of one airline with their planes",
        "Every flight from New York in 2013 of the airline, with what is known of its plane.",
        {"database": "flights", "from": "flights", "match": {"carrier": _parameter("carrier")}, "joins": [_PLANE]},
    ),
    _sample(
        "flights-weather",
        "Late flights with the weather at departure",
        "Flights that left at least so many minutes late, with the weather of that hour at their airport.",
        {
            "database": "flights",
            "from": "flights",
            "match": {"dep_delay": {"$gte": _parameter("minutes")}},
            "joins": [
                {
                    "from": "weather",
                    "as": "weather",
                    "on": [
                        {"local": "origin", "foreign": "origin"},
                        {"local": "time_hour", "foreign": "time_hour"},
                    ],
                    "shape": "first",
                }
            ],
        },
    ),
    _sample(
        "flights-three",
        "Flights with plane and destination",
        "Three collections: the flights to one airport, each with its plane and with the airport itself.",
        {
            "database": "flights",
            "from": "flights",
            "match": {"dest": _parameter("airport")},
            "joins": [
                _PLANE,
                {
                    "from": "airports",
                    "as": "destination",
                    "on": [{"local": "dest", "foreign": "faa"}],
                    "shape": "first",
                },
            ],
        },
    ),
]
