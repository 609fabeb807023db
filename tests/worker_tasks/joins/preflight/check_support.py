"""Small collections with one flaw each, and helpers for the tests of checks."""

import json
from typing import Any

from bson import Decimal128, Int64, ObjectId

from worker_tasks.infra.connections import Document
from worker_tasks.joins.preflight.checks import check_join
from worker_tasks.joins.preflight.findings import Finding, Level
from worker_tasks.joins.spec.spec import JoinSpec

NAME = "checks"
NOTE = "n" * 150


def oid(number: int) -> ObjectId:
    return ObjectId(f"{number:024x}")


USER_OR_GAP: list[Document] = [{"user": 1}, {"user": 2}, {"user": None}, {}]
COLLECTIONS: dict[str, list[Document]] = {
    "products": [{"_id": oid(number), "name": f"product {number}"} for number in range(10)],
    # Half of them would match a product if their keys were not text.
    "reviews": [{"_id": number, "productId": str(oid(number))} for number in range(20)],
    "mixed": [{"_id": number, "productId": oid(number) if number % 2 else str(oid(number))} for number in range(10)],
    "priced": [
        {"_id": number, "price": price} for number, price in enumerate([1, Int64(2), 3.0, Decimal128("4"), 5, 6])
    ],
    "prices": [{"_id": f"p{number}", "price": float(number)} for number in range(1, 7)],
    "codes": [{"_id": number, "code": f"code {number}"} for number in range(10)],
    "shouted": [
        {"_id": number, "code": f" CODE {number} " if number < 5 else f"code {number}"} for number in range(10)
    ],
    "gaps": [{"_id": number, **USER_OR_GAP[number % 4]} for number in range(40)],
    "baskets": [{"_id": number, "users": [number, number + 1]} for number in range(10)],
    "users": [{"_id": number, "name": f"user {number}", "note": NOTE} for number in range(40)],
    # User n has n % 4 orders, so one user in four has none.
    "orders": [
        {"_id": f"o{user}.{number}", "userId": user, "sku": f"s{number}", "status": "paid", "note": NOTE}
        for user in range(40)
        for number in range(user % 4)
    ],
    "indexed": [{"_id": number, "userId": number % 20} for number in range(40)],
    "strays": [{"_id": number, "userId": number} for number in range(20, 60)],
    # The same cities, with different case on the other side.
    "cities": [{"_id": number, "city": f"berlin {number}"} for number in range(9)],
    "places": [{"_id": number, "city": text} for number, text in enumerate(["Berlin 0", "BERLIN 1", "berlin 2"])],
    "baskets_of_text": [{"_id": number, "ids": [str(number), number]} for number in range(10)],
    "thirds": [{"_id": number, "user": number % 5} for number in range(10)],
    "halves": [{"_id": number, "user": number % 10, "even": number % 2} for number in range(40)],
    "skus": [{"_id": f"s{number}", "name": f"sku {number}"} for number in range(2)],
}


def spec_of(left: str, *joins: Document, **more: Any) -> JoinSpec:
    return JoinSpec.model_validate_json(json.dumps({"database": NAME, "from": left, "joins": joins, **more}))


def join_with(other: str, local: str, foreign: str, **more: Any) -> Document:
    name = {} if more.get("kind") in {"semi", "anti"} else {"as": "found"}
    return {"from": other, "on": [{"local": local, "foreign": foreign}], **name, **more}


def finding_with(spec: JoinSpec, words: str) -> Finding:
    """The only finding whose text contains these words."""
    (finding,) = [finding for finding in check_join(spec).findings if words in finding.text]
    return finding


def texts(spec: JoinSpec, *levels: Level) -> list[str]:
    return [finding.text for finding in check_join(spec).findings if finding.level in levels]


PROBLEMS = (Level.STOP, Level.WARNING)

#: The finding about the reviews, whose keys are text.
NEVER_MATCH = (
    "reviews.productId holds text, products._id ObjectIds: they never match. Converted to objectId, 50 % find a match."
)
