"""Parts hold every document that the filter keeps, and no other."""

import pytest
from pymongo.database import Database

from worker_tasks.infra.connections import Document
from worker_tasks.joins.plan import planning
from worker_tasks.joins.spec.sides import Side


@pytest.mark.parametrize(("match", "count"), [({"_id": 5}, 1), ({"_id": {"$lt": 3}}, 3), ({"_id": -1}, 0)])
def test_parts_of_few_documents_hold_all_of_them(big: Database[Document], match: Document, count: int) -> None:
    parts, _, _ = planning._divide(Side(None, big.name, "users"), match, 8, "dovetail:parts")
    assert sum(big.users.count_documents({"$and": [part, match]}) for part in parts) == count
