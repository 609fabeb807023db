"""The shop, with made-up users, orders, products and reviews that are identical on every machine."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from random import Random

from bson import Decimal128, ObjectId
from pymongo import IndexModel

from development.samples.table import Document, Table

USERS = 400
ORDERS = 900
PRODUCTS = 80
REVIEWS = 600
BUYERS = 320  # later users have no orders
UNKNOWN_BUYERS = 12  # deleted users to whom orders may still refer
UNKNOWN_BUYER_SHARE = 0.03
OPENED = datetime(2024, 1, 1, tzinfo=UTC)

FIRST_NAMES = "Ada Bola Chen Dana Emeka Fatima Goran Hana Ines Jonas Kofi Lena Mei Noor Omar Priya Rosa Sven Tariq Yuki"
LAST_NAMES = (
    "Adeyemi Bauer Costa Dubois Eriksen Fischer Garcia Haddad Ivanov Kim Lopez Mensah Nakamura Okafor Patel Rossi"
)
CITIES = "Accra Berlin Lagos Lima Lisbon Madrid Osaka Oslo Pune Seoul Toronto Tunis"
MATERIALS = "Ash Beech Cherry Elm Larch Maple Oak Pine Walnut"
THINGS = "bench bowl box chair desk frame lamp shelf stool table tray"
TAGS = "kitchen study garden hall gift small"
STATUSES = ["PAID", "PAID", "PAID", "PENDING", "SHIPPED", "REFUNDED", "CANCELLED"]


def users() -> Iterator[Document]:
    yield {"_id": "u1", "name": "Alice", "email": "alice@example.com"}
    random = Random("users")
    for number in range(2, USERS + 1):
        first, last = random.choice(FIRST_NAMES.split()), random.choice(LAST_NAMES.split())
        yield {
            "_id": f"u{number}",
            "name": f"{first} {last}",
            "email": f"{first}.{last}.{number}@example.com".lower(),
            "city": random.choice(CITIES.split()),
            "joinedAt": OPENED + timedelta(minutes=random.randrange(365 * 24 * 60)),
        }


def orders() -> Iterator[Document]:
    yield {"_id": "o101", "userId": "u1", "amount": 1200, "status": "PAID"}
    random = Random("orders")
    for number in range(102, 101 + ORDERS):
        buyer = random.randrange(2, BUYERS + 1)
        if random.random() < UNKNOWN_BUYER_SHARE:
            buyer = USERS + random.randrange(1, UNKNOWN_BUYERS + 1)
        yield {
            "_id": f"o{number}",
            "userId": f"u{buyer}",
            "amount": Decimal128(f"{random.randrange(5, 900)}.{random.randrange(100):02}"),
            "status": random.choice(STATUSES),
            "orderedAt": OPENED + timedelta(days=365, minutes=random.randrange(180 * 24 * 60)),
        }


def products() -> Iterator[Document]:
    random = Random("products")
    for number in range(1, PRODUCTS + 1):
        name = f"{random.choice(MATERIALS.split())} {random.choice(THINGS.split())}"
        price = Decimal128(f"{random.randrange(3, 300)}.{random.randrange(100):02}")
        yield {"_id": product_id(number), "name": name, "price": price, "tags": random.sample(TAGS.split(), 2)}


def product_id(number: int) -> ObjectId:
    return ObjectId(f"{number:024x}")


def reviews() -> Iterator[Document]:
    """Yields reviews whose ``productId`` is the product's ``_id`` as text, the most common cause of an empty join."""
    random = Random("reviews")
    for number in range(1, REVIEWS + 1):
        yield {
            "_id": f"r{number}",
            "productId": str(product_id(random.randrange(1, PRODUCTS + PRODUCTS // 20))),
            "userId": f"u{random.randrange(1, USERS + 1)}",
            "stars": random.choice([1, 2, 3, 4, 4, 5, 5, 5]),
            "writtenAt": OPENED + timedelta(days=365, minutes=random.randrange(180 * 24 * 60)),
        }


TABLES = [
    Table("users", users),
    Table("orders", orders, [IndexModel("userId"), IndexModel("status")]),
    Table("products", products),
    Table("reviews", reviews, [IndexModel("productId")]),
]
