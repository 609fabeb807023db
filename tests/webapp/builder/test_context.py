"""The choices, suggestions, buttons and checks on the builder's page."""

import json
import re
from collections.abc import Iterator
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
from celery import states
from flask.testing import FlaskClient
from pymongo.database import Database
from werkzeug.test import TestResponse

from development.servers import Server
from tests.mongodb import variables
from tests.support import Process, submit_form, wait_for_state
from worker_tasks.infra.connections import Document, connections
from worker_tasks.records import ledger, task_search

USERS_AND_ORDERS = {
    "database": "shop",
    "source": "users",
    "joins-0-source": "orders",
    "joins-0-on-0-local": "_id",
    "joins-0-on-0-foreign": "userId",
}

pytestmark = pytest.mark.usefixtures("shop")


def at(client: FlaskClient, written: dict[str, str]) -> str:
    answer = client.get(f"/?{urlencode(written)}")
    assert answer.status_code == 200
    return answer.text


def press(client: FlaskClient, action: str, written: dict[str, str]) -> TestResponse:
    return submit_form(client, "/", {**written, "do": action}, headers={"Accept": "text/html"})


def written_in(answer: TestResponse) -> dict[str, str]:
    """The form data in the URL of a redirect."""
    assert answer.status_code == 303
    return dict(parse_qsl(urlsplit(answer.headers["Location"]).query))


def options(page: str, name: str) -> list[str]:
    """The option values of the select element with this name."""
    found = re.search(rf'<select[^>]* name="{name}"[^>]*>(.*?)</select>', page, re.DOTALL)
    assert found, f"no select {name}"
    return re.findall(r'<option[^>]*value="([^"]+)"', found[1])


def test_each_choice_offers_the_next_one(client: FlaskClient) -> None:
    assert "Choose a database." in at(client, {})
    page = at(client, {"database": "shop"})
    assert {"users", "orders", "products", "reviews"} <= set(options(page, "source"))
    assert "users (400)" in page
    page = at(client, {"database": "shop", "source": "users"})
    assert '<option value="email" label="text"></option>' in page
    assert "Choose the collection to bring in." in page


def test_the_most_likely_keys_are_filled_in(client: FlaskClient) -> None:
    page = at(client, {"database": "shop", "source": "users", "joins-0-source": "orders"})
    assert re.search(r'name="joins-0-on-0-local"[^>]* value="_id"', page)
    assert re.search(r'name="joins-0-on-0-foreign"[^>]* value="userId"', page)


def test_a_key_that_differs_in_type_is_suggested_with_its_cast(client: FlaskClient) -> None:
    page = at(client, {"database": "shop", "source": "reviews", "joins-0-source": "products"})
    assert re.search(r'name="joins-0-on-0-local"[^>]* value="productId"', page)
    assert '<option selected value="objectId">as ObjectId</option>' in page


def test_buttons_change_the_form_and_the_url(client: FlaskClient) -> None:
    written = written_in(press(client, "add-join", USERS_AND_ORDERS))
    assert written == USERS_AND_ORDERS
    more = USERS_AND_ORDERS | {"joins-1-source": "reviews"}
    assert "joins-1-source" not in written_in(press(client, "remove-join 1", more))
    two = USERS_AND_ORDERS | {"joins-0-on-1-local": "name", "joins-0-on-1-foreign": "status"}
    assert "joins-0-on-1-local" not in written_in(press(client, "remove-pair 0", two))
    used = written_in(press(client, f"use 0 {json.dumps([['email', 'status', None, 'case']])}", USERS_AND_ORDERS))
    assert (used["joins-0-on-0-local"], used["joins-0-on-0-foreign"]) == ("email", "status")
    assert used["joins-0-on-0-fold"] == "case"
    cured = written_in(press(client, "cure 0 0 cast string", USERS_AND_ORDERS))
    assert cured["joins-0-on-0-cast"] == "string"
    assert written_in(press(client, "cure 0 0 fold both", USERS_AND_ORDERS))["joins-0-on-0-fold"] == "both"
    assert written_in(press(client, "cure 0 0 shape first", USERS_AND_ORDERS))["joins-0-shape"] == "first"


@pytest.mark.parametrize(
    "action", ["use 0 nonsense", "cure 7 0 cast string", "remove-join x", "cure 0 9 a b", "strange"]
)
def test_an_invalid_action_changes_nothing(client: FlaskClient, action: str) -> None:
    assert written_in(press(client, action, USERS_AND_ORDERS)) == USERS_AND_ORDERS


def test_a_change_returns_the_form_alone_and_its_url(client: FlaskClient) -> None:
    token = re.search(r'name="csrf_token"[^>]* value="([^"]+)"', client.get("/").text)
    assert token
    answer = client.post("/", data={"csrf_token": token[1], **USERS_AND_ORDERS}, headers={"HX-Request": "true"})
    assert "<html" not in answer.text
    assert answer.headers["HX-Replace-Url"] == f"/?{urlencode(USERS_AND_ORDERS)}"


def checks_of(client: FlaskClient, written: dict[str, str]) -> str:
    answer = submit_form_to(client, "/checks", written)
    assert answer.status_code == 200
    return answer.text


def submit_form_to(client: FlaskClient, path: str, written: dict[str, str]) -> TestResponse:
    token = re.search(r'name="csrf_token"[^>]* value="([^"]+)"', client.get("/").text)
    assert token
    return client.post(path, data={"csrf_token": token[1], **written}, headers={"Accept": "text/html"})


def test_the_checks_show_the_expected_result(client: FlaskClient) -> None:
    fragment = checks_of(client, USERS_AND_ORDERS)
    assert "Users with their orders" in fragment
    assert "about 400" in fragment
    assert "A worker reads users and orders once and joins them" in fragment
    assert "5 rows as they will come" in fragment
    assert "$lookup" in fragment
    assert "curl -X POST http://localhost/api/v1/joins" in fragment


def test_the_checks_of_an_incomplete_draft_name_the_next_step(client: FlaskClient) -> None:
    assert "Choose the collection to bring in." in checks_of(client, {"database": "shop", "source": "users"})


def test_the_checks_of_an_invalid_draft_name_the_errors(client: FlaskClient) -> None:
    wrong = USERS_AND_ORDERS | {"filters-0-field": "joinedAt", "filters-0-value": "soon"}
    assert "“soon” is not a date" in checks_of(client, wrong)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"filters-0-field": "joinedAt", "filters-0-value": "soon"}, "“soon” is not a date"),
        ({"joins-0-limit": "many"}, "Must be a whole number"),
        ({"raw": '{"$where": "1"}'}, "$where is not allowed in a filter."),
    ],
)
def test_without_javascript_an_error_appears_once_at_its_field(
    client: FlaskClient, wrong: dict[str, str], words: str
) -> None:
    page = at(client, USERS_AND_ORDERS | wrong | {"check": "yes"})
    form, _, found = page.partition('id="checks"')
    assert form.count(words) == 1
    assert found.count(words) == 1


def test_a_parameter_is_not_an_error(client: FlaskClient) -> None:
    written = USERS_AND_ORDERS | {"filters-0-field": "city", "filters-0-value": "{city}"}
    fragment = checks_of(client, written)
    assert "{city} will be asked for when the saved join is run" in fragment
    assert "finding-stop" not in fragment
    assert 'aria-invalid="true"' not in at(client, written)


def test_the_back_button_undoes_the_press_of_a_button(client: FlaskClient) -> None:
    token = re.search(r'name="csrf_token"[^>]* value="([^"]+)"', client.get("/").text)
    assert token
    data = {"csrf_token": token[1], **USERS_AND_ORDERS, "do": "cure 0 0 shape first"}
    answer = client.post("/", data=data, headers={"HX-Request": "true"})
    assert answer.headers["HX-Push-Url"].endswith("joins-0-shape=first")
    assert "HX-Replace-Url" not in answer.headers


def test_without_javascript_the_checks_are_a_page(client: FlaskClient) -> None:
    answer = press(client, "check", USERS_AND_ORDERS)
    page = client.get(answer.headers["Location"]).text
    assert "A worker reads users and orders once and joins them" in page


def test_a_join_is_run_with_its_metadata_and_its_checks(client: FlaskClient, worker: Process) -> None:
    why = {"note": "for the audit", "metadata-0-key": "ticket", "metadata-0-value": "T-7"}
    answer = press(client, "run", USERS_AND_ORDERS | {"joins-0-kind": "inner"} | why)
    assert answer.status_code == 303
    task = wait_for_state(answer.headers["Location"].rpartition("/")[2], states.SUCCESS)
    assert task["metadata"] == {"note": "for the audit", "ticket": "T-7"}
    assert task["join"]["joins"][0]["kind"] == "inner"
    assert task["checks"]["expected"]["rows"] == pytest.approx(json.loads(task["result"])["count"], rel=0.1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"joins-0-on-0-foreign": ""}, "Choose the field of orders that _id equals."),
        ({"joins-0-name": "a.b"}, "must be the name of one new field"),
        ({"source": "nowhere"}, "nowhere does not exist"),
        ({"limit": "x"}, "Must be a whole number, 1 or more"),
        ({"metadata-0-key": "a.b", "metadata-0-value": "x"}, "a key must not contain"),
        ({"raw": '{"$where": "1"}'}, "$where is not allowed in a filter."),
    ],
)
def test_invalid_input_is_reported_and_nothing_is_recorded(
    client: FlaskClient, no_tasks: None, change: dict[str, str], words: str
) -> None:
    answer = press(client, "run", USERS_AND_ORDERS | {"note": "typed before"} | change)
    assert answer.status_code == 422
    assert words.lower() in answer.text.lower()
    assert "typed before" in answer.text
    assert task_search.search(task_search.TaskFilter(), 1) == []


def test_a_join_in_json_opens_in_the_builder(client: FlaskClient) -> None:
    join = {
        "from": "orders",
        "as": "theirs",
        "on": [{"local": "_id", "foreign": "userId"}],
        "match": {"status": "PAID"},
    }
    whole = {"database": "shop", "from": "users", "joins": [join]}
    answer = client.get(f"/?{urlencode({'join': json.dumps(whole)})}")
    page = client.get(answer.headers["Location"]).text
    assert re.search(r'name="joins-0-filters-0-value"[^>]* value="PAID"', page)
    assert re.search(r'name="joins-0-name"[^>]* value="theirs"', page)


def test_a_join_too_long_for_a_url_still_opens(client: FlaskClient) -> None:
    join = {"from": "orders", "as": "theirs", "on": [{"local": "_id", "foreign": "userId"}]}
    names = {"$in": [f"{'n' * 90}{number}" for number in range(90)]}
    whole = {"database": "shop", "from": "users", "match": {"name": names}, "joins": [join]}
    answer = client.get(f"/?{urlencode({'join': json.dumps(whole)})}")
    assert answer.status_code == 200
    assert re.search(r'name="joins-0-name"[^>]* value="theirs"', answer.text)


@pytest.mark.parametrize("join", ["{", '{"database": "shop"}', '"text"'])
def test_an_invalid_join_in_the_url_is_refused(client: FlaskClient, join: str) -> None:
    assert client.get(f"/?{urlencode({'join': join})}").status_code in {400, 422}


def test_metadata_keys_of_earlier_tasks_are_offered(client: FlaskClient, shop: Database[Document]) -> None:
    ledger.record(ledger.new_document("with-metadata", "a.task", metadata={"cost centre": "7"}))
    page = at(client, {"database": "shop", "source": "users"})
    assert '<option value="cost centre"></option>' in page


CARTS = {
    "database": "big",
    "source": "carts",
    "joins-0-source": "goods",
    "joins-0-on-0-local": "items.goodId",
    "joins-0-on-0-foreign": "_id",
}
PUT_INTO_ITEMS = "Put the matches into each element of items"


@pytest.fixture(scope="module")
def carts(servers: None) -> Iterator[None]:
    """Carts with a list of items, and the goods that the items name."""
    database = connections().joins.big
    database.goods.insert_many([{"_id": number, "name": f"good {number}"} for number in range(5)])
    items = [{"goodId": number, "quantity": 2} for number in range(3)]
    database.carts.insert_many([{"_id": number, "by": f"u{number}", "items": items} for number in range(3)])
    connections().results.delete("collection_names::big")
    yield
    for name in ("goods", "carts"):
        connections().joins.big.drop_collection(name)


@pytest.mark.usefixtures("carts")
def test_the_lists_of_the_first_collection_can_be_expanded(client: FlaskClient) -> None:
    page = at(client, CARTS)
    assert "A row for each element of a list" in page
    assert re.search(r'<datalist id="left-lists">\s*<option value="items"', page)
    assert "A row for each element of a list" not in at(client, USERS_AND_ORDERS)
    page = at(client, CARTS | {"expand-0-path": "items", "expand-0-position": "line"})
    assert re.search(r'name="expand-0-position"[^>]* value="line"', page)
    assert '<input id="fields-0" name="fields" type="checkbox" value="line">' in page


@pytest.mark.usefixtures("carts")
def test_an_expanded_list_survives_a_change_of_the_form(client: FlaskClient) -> None:
    more = {"expand-0-path": "items", "expand-0-keep_empty": "True"}
    assert written_in(press(client, "draft", CARTS | more)) == CARTS | more


@pytest.mark.usefixtures("carts")
def test_matches_can_go_into_the_elements_of_a_list(client: FlaskClient) -> None:
    page = at(client, CARTS)
    assert PUT_INTO_ITEMS in page
    assert "Carts that have goods" in page
    assert not re.search(r'name="joins-0-into"[^>]*checked', page)
    page = at(client, CARTS | {"joins-0-into": "items"})
    assert re.search(r'name="joins-0-into"[^>]*checked', page)
    assert "Carts that have goods" not in page
    assert "One row for each match" not in page


@pytest.mark.usefixtures("carts")
@pytest.mark.parametrize(
    "change",
    [
        {"joins-0-on-0-local": "by"},
        {"expand-0-path": "items"},
        {"joins-0-on-1-local": "by", "joins-0-on-1-foreign": "name"},
    ],
)
def test_matches_go_into_the_elements_of_one_list_only(client: FlaskClient, change: dict[str, str]) -> None:
    assert PUT_INTO_ITEMS not in at(client, CARTS | change)


@pytest.mark.usefixtures("carts")
def test_matches_can_go_into_a_list_that_an_earlier_join_made(client: FlaskClient) -> None:
    more = {"joins-1-source": "products", "joins-1-on-0-local": "orders.product", "joins-1-on-0-foreign": "_id"}
    assert "Put the matches into each element of orders" in at(client, USERS_AND_ORDERS | more)
    assert "into each element" not in at(client, USERS_AND_ORDERS | more | {"joins-0-shape": "first"})


@pytest.mark.usefixtures("carts")
def test_a_later_join_can_use_the_matches_in_a_list(client: FlaskClient) -> None:
    more = {"joins-0-into": "items", "joins-0-name": "good", "joins-1-source": "goods"}
    page = at(client, CARTS | more)
    assert '<option value="items.good.name"' in page


def test_the_last_join_can_be_removed_and_brought_back(client: FlaskClient) -> None:
    assert "Read users alone" in at(client, USERS_AND_ORDERS)
    alone = written_in(press(client, "remove-join 0", USERS_AND_ORDERS))
    assert alone == {"database": "shop", "source": "users", "alone": "y"}
    page = at(client, alone)
    assert "Read the collection" in page
    assert 'name="joins-0-source"' not in page
    assert 'name="joins-0-source"' in client.get(press(client, "add-join", alone).headers["Location"]).text


def test_differences_between_keys_can_be_ignored(client: FlaskClient) -> None:
    page = at(client, USERS_AND_ORDERS | {"joins-0-on-0-fold": "both"})
    assert '<option selected value="both">ignore capitals and blanks</option>' in page
    assert '<option value="uuidJavaLegacy">as old UUID of Java</option>' in page


@pytest.mark.usefixtures("carts")
def test_collections_of_other_databases_are_offered_in_groups(client: FlaskClient) -> None:
    page = at(client, USERS_AND_ORDERS | {"joins-0-source": "$big$goods"})
    assert '<optgroup label="shop">' in page
    assert '<option selected value="$big$goods">goods</option>' in page
    assert '<option value="orders">orders (' in page


@pytest.fixture
def _crm(mongodb_server: Server) -> Iterator[None]:
    """A source named crm, which is the same server, and one that does not answer."""
    away = {"SOURCE_AWAY_URI": "mongodb://127.0.0.1:1", "SOURCE_AWAY_DATABASES": "gone"}
    with variables(SOURCE_CRM_URI=mongodb_server.url, SOURCE_CRM_DATABASES="shop", **away):
        yield


@pytest.mark.usefixtures("_crm")
def test_collections_of_other_sources_are_offered_in_groups(client: FlaskClient) -> None:
    page = at(client, USERS_AND_ORDERS)
    assert '<option value="crm$shop">crm: shop</option>' in page
    assert '<optgroup label="crm: shop">' in page
    assert "crm$shop$orders" in options(page, "joins-0-source")
    assert '<optgroup label="away: gone">' not in page


@pytest.mark.usefixtures("_crm")
def test_a_draft_can_begin_in_a_source_with_a_name(client: FlaskClient) -> None:
    page = at(client, {"database": "crm$shop", "source": "users", "joins-0-source": "$shop$orders"})
    assert "users (400)" in page
    assert '<option selected value="$shop$orders">orders</option>' in page
    assert re.search(r'name="joins-0-on-0-foreign"[^>]* value="userId"', page)


@pytest.mark.usefixtures("_crm")
def test_a_form_works_though_the_source_of_a_join_is_away(client: FlaskClient) -> None:
    chosen = USERS_AND_ORDERS | {"joins-0-source": "away$gone$x"}
    page = at(client, chosen)
    assert "away$gone$x" in options(page, "joins-0-source")
    assert "away: gone.x: not there" in page
    assert "orders (" in page
    assert "MongoDB does not answer" in at(client, chosen | {"check": "yes"})
