"""A person builds a join from scratch, checks it, runs it, follows it and fixes it."""

import re
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect
from pymongo.database import Database

from development.servers import Server
from tests.browser.conftest import FaultLog, violations
from tests.support import paused, submit_join
from worker_tasks.infra.connections import Document, connections

pytestmark = pytest.mark.usefixtures("flights")


def settled(page: Page) -> None:
    """Waits until the form and the checks reflect the latest choice."""
    expect(page.locator(".htmx-request")).to_have_count(0)


def choose(page: Page, label: str, value: str, nth: int = 0) -> None:
    page.get_by_label(label, exact=True).nth(nth).select_option(value)
    settled(page)


def write(field: Locator, text: str) -> None:
    """Types into a field and tabs to the next one, which triggers the change event."""
    field.fill(text)
    field.press("Tab")
    settled(field.page)


def press(page: Page, name: str) -> None:
    page.get_by_role("button", name=name).click()
    settled(page)


def checks(page: Page) -> Locator:
    return page.get_by_role("complementary", name="What to expect")


def run(page: Page) -> None:
    page.get_by_role("button", name="Run the join").click()
    expect(page).to_have_url(re.compile(r"/tasks/[0-9a-f-]{36}$"))


def begin(page: Page, database: str, left: str, other: str) -> None:
    page.goto("/")
    settled(page)
    choose(page, "Database", database)
    choose(page, "Collection", left)
    choose(page, "Collection", other, nth=1)


def test_flights_are_joined_to_their_planes_from_an_empty_form_to_the_first_rows(page: Page) -> None:
    begin(page, "flights", "flights", "planes")
    expect(page.get_by_label("Field of flights")).to_have_value("tailnum")
    expect(page.get_by_label("Field of planes")).to_have_value("tailnum")
    expect(checks(page)).to_contain_text("find a match in planes by tailnum = tailnum")
    press(page, "Take the match from planes alone")
    expect(page.get_by_label("The first match alone")).to_be_checked()
    page.get_by_text("Only some flights").click()
    write(page.get_by_label("Field 1", exact=True).first, "carrier")
    write(page.get_by_label("Value 1", exact=True).first, "HA")
    expect(checks(page)).to_contain_text("Your filter keeps 342 of 336,776 flights.")
    expect(checks(page).get_by_role("region", name="Preview")).to_contain_text("tailnum")
    write(page.get_by_label("Note"), "for the timetable")
    assert "filters-0-value=HA" in page.url
    assert violations(page) == []
    run(page)
    expect(page.get_by_role("status")).to_contain_text("342 rows joined.")
    expect(page.get_by_role("table")).to_contain_text("about 340")
    page.get_by_role("link", name="Read the result").click()
    expect(page.get_by_role("region", name="Joined documents")).to_contain_text("HNL")


def test_the_address_restores_the_form(page: Page) -> None:
    begin(page, "shop", "users", "orders")
    page.get_by_label("One row for each match").check()
    expect(page).to_have_url(re.compile("joins-0-shape=rows"))
    page.reload()
    expect(page.get_by_label("One row for each match")).to_be_checked()
    expect(checks(page)).to_contain_text("Users with their orders")


def test_keys_of_different_types_are_detected_and_converted(page: Page) -> None:
    begin(page, "shop", "reviews", "products")
    choose(page, "Left value", "")
    expect(checks(page)).to_contain_text("reviews.productId holds text, products._id ObjectIds: they never match.")
    press(page, "Convert to ObjectId")
    expect(page.get_by_label("Left value")).to_have_value("objectId")
    expect(checks(page)).to_contain_text(re.compile(r"9\d % of reviews find a match in products"))


def test_a_scan_is_announced_with_the_cost_of_a_missing_index(page: Page, shop: Database[Document]) -> None:
    begin(page, "flights", "planes", "weather")
    write(page.get_by_label("Field of planes"), "year")
    write(page.get_by_label("Field of weather"), "year")
    expect(checks(page)).to_contain_text("A worker reads planes and weather once and joins them")
    expect(checks(page)).to_contain_text(re.compile(r"No index serves weather\.year; .* about \d"))


def test_three_collections_are_joined_in_a_row(page: Page) -> None:
    begin(page, "flights", "flights", "airlines")
    press(page, "Bring in another collection")
    choose(page, "Collection", "airports", nth=2)
    write(page.get_by_label("Field of flights").nth(1), "dest")
    write(page.get_by_label("Field of airports"), "faa")  # a busy machine may have no time to suggest it
    page.get_by_text("Only some flights").click()
    write(page.get_by_label("Field 1", exact=True).first, "dest")
    write(page.get_by_label("Value 1", exact=True).first, "ANC")
    expect(checks(page)).to_contain_text("Flights with their airlines and airports")
    run(page)
    expect(page.get_by_role("status")).to_contain_text("8 rows joined.")
    page.get_by_role("link", name="Read the result").click()
    expect(page.get_by_role("region", name="Joined documents")).to_contain_text("United Air Lines Inc.")
    expect(page.get_by_role("region", name="Joined documents")).to_contain_text("Ted Stevens Anchorage Intl")


def test_a_join_is_saved_with_a_parameter_and_run_with_a_value(page: Page) -> None:
    begin(page, "flights", "flights", "airlines")
    page.get_by_text("Only some flights").click()
    write(page.get_by_label("Field 1", exact=True).first, "dest")
    page.get_by_label("Value 1", exact=True).first.fill("{airport}")
    page.get_by_text("Save this join").click()
    page.get_by_label("Name", exact=True).fill("Flights to an airport")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_role("heading", name="Flights to an airport")).to_be_visible()
    page.get_by_label("Airport").fill("LEX")
    run(page)
    expect(page.get_by_role("status")).to_contain_text("1 row joined.")
    expect(page.get_by_role("heading", name="Flights to an airport")).to_be_visible()
    page.get_by_role("link", name="Saved").click()
    expect(page.get_by_role("link", name="Flights to an airport")).to_be_visible()


HEAVY: dict[str, Any] = {
    "database": "flights",
    "from": "flights",
    "joins": [
        {
            "from": "flights",
            "as": "others",
            "on": [{"local": "dest", "foreign": "origin"}],
            "limit": 400,
            "sort": [["_id", -1]],
        }
    ],
}


def test_a_running_join_is_cancelled_with_a_receipt(page: Page) -> None:
    task_id = submit_join(HEAVY, fresh=True)
    page.goto(f"/tasks/{task_id}")
    expect(page.get_by_role("status")).to_contain_text("Running")
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("status")).to_contain_text("Cancelled")
    receipt = page.get_by_role("region", name="Cancelled")
    expect(receipt).to_contain_text("nothing, as MongoDB says")
    expect(receipt).to_contain_text("Kept")


def test_two_tabs_show_a_task_live(page: Page) -> None:
    task_id = submit_join(HEAVY | {"match": {"month": 2}}, fresh=True)
    other = page.context.new_page()
    for tab in (page, other):
        tab.goto(f"/tasks/{task_id}")
        expect(tab.get_by_role("status")).to_contain_text("Running")
        expect(tab).to_have_title(re.compile("^(Running|[0-9]+ %)"))
    other.get_by_role("button", name="Cancel").click()
    for tab in (page, other):
        expect(tab.get_by_role("status")).to_contain_text("Cancelled")
    expect(page).to_have_title(re.compile("^Cancelled · Flights with their flights"))
    expect(page.locator("link[rel=icon]")).to_have_attribute("href", re.compile("icon-cancelled"))


def test_a_failed_join_is_explained_changed_and_run_again(page: Page, shop: Database[Document]) -> None:
    database = connections().joins.big
    database.hubs.insert_one({"_id": 1})
    database.spokes.insert_many([{"hub": 1, "text": "x" * 100_000} for _ in range(200)])
    join = {"from": "spokes", "as": "spokes", "on": [{"local": "_id", "foreign": "hub"}]}
    page.goto(f"/tasks/{submit_join({'database': 'big', 'from': 'hubs', 'joins': [join]})}")
    expect(page.get_by_role("status")).to_contain_text("bigger than the 16 MB that MongoDB allows", timeout=30_000)
    page.get_by_role("link", name="Change it first").click()
    expect(checks(page)).to_contain_text("1 has 200 matches, about 19 MB")
    page.get_by_label("One row for each match").check()
    settled(page)
    run(page)
    expect(page.get_by_role("status")).to_contain_text("200 rows joined.")


def test_an_empty_result_is_explained(page: Page) -> None:
    begin(page, "shop", "users", "orders")
    page.get_by_label("Users that have orders, with them").check()
    page.get_by_text("Only some orders").click()
    write(page.get_by_label("Field 1", exact=True).nth(1), "status")
    write(page.get_by_label("Value 1", exact=True).nth(1), "paid")
    run(page)
    expect(page.get_by_role("status")).to_contain_text("Nothing was found: 0 rows.")
    expect(page.get_by_role("region", name="Why it is empty")).to_contain_text(
        "The filter on orders removes every match"
    )


def test_an_error_appears_at_its_field(watched: tuple[Page, FaultLog]) -> None:
    page, faults = watched
    faults.expected_statuses.add(422)
    begin(page, "shop", "users", "orders")
    page.get_by_text("Only some users").click()
    write(page.get_by_label("Field 1", exact=True).first, "joinedAt")
    write(page.get_by_label("Value 1", exact=True).first, "soon")
    expect(checks(page)).to_contain_text("“soon” is not a date")
    page.get_by_role("button", name="Run the join").click()
    value = page.get_by_label("Value 1", exact=True).first
    expect(value).to_have_attribute("aria-invalid", "true")
    expect(value).to_have_accessible_description(re.compile("is not a date"))
    assert violations(page) == []


def test_metadata_is_edited_on_the_task_page(page: Page) -> None:
    join = {"from": "orders", "as": "orders", "on": [{"local": "_id", "foreign": "userId"}]}
    task_id = submit_join({"database": "shop", "from": "users", "joins": [join]}, metadata={"team": "blue", "cost": 7})
    page.goto(f"/tasks/{task_id}")
    page.get_by_text("Change the metadata").click()
    page.get_by_label("Value 1", exact=True).fill("green")
    page.get_by_label("Key 3", exact=True).fill("ticket")
    page.get_by_label("Value 3", exact=True).fill("T-9")
    page.get_by_role("button", name="Keep the changes").click()
    expect(page.get_by_text("T-9", exact=True)).to_be_visible()
    task = connections().tasks.find_one({"_id": task_id}, {"metadata": 1})
    assert task is not None
    assert task["metadata"] == {"team": "green", "cost": 7, "ticket": "T-9"}


def test_the_builder_works_without_javascript(page_without_javascript: Page) -> None:
    page = page_without_javascript
    page.goto("/")
    for label, nth, value in (("Database", 0, "shop"), ("Collection", 0, "users"), ("Collection", 1, "orders")):
        page.get_by_label(label, exact=True).nth(nth).select_option(value)
        page.get_by_role("button", name="Update the form").click()
    expect(page.get_by_label("Field of orders")).to_have_value("userId")
    page.get_by_role("button", name="Check before running").click()
    expect(checks(page)).to_contain_text(re.compile("7[0-9] % of users find a match in orders"))
    page.get_by_role("button", name="Run the join").click()
    expect(page.get_by_text("400 rows joined.")).to_be_visible()


def test_the_builder_works_with_the_keyboard_alone(page: Page) -> None:
    page.goto("/")
    page.get_by_label("Database").focus()
    for text in ("shop", "users"):
        page.keyboard.type(text)
        page.keyboard.press("Tab")
        settled(page)
    page.get_by_label("Collection", exact=True).nth(1).focus()
    page.keyboard.type("orders")
    page.keyboard.press("Tab")
    settled(page)
    page.get_by_label("Users with their orders").focus()
    page.keyboard.press("ArrowDown")
    settled(page)
    expect(page.get_by_label("Users that have orders, with them")).to_be_checked()
    page.get_by_role("button", name="Run the join").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_contain_text("302 rows joined.")


def test_enter_updates_the_form_and_the_back_button_undoes_a_step(page: Page) -> None:
    begin(page, "shop", "users", "orders")
    page.evaluate("window.notReloaded = true")
    name = page.get_by_label("Into the field")
    name.fill("theirs")
    name.press("Enter")
    settled(page)
    expect(page).to_have_url(re.compile("joins-0-name=theirs"))
    expect(name).to_be_focused()
    assert page.evaluate("window.notReloaded")
    press(page, "Bring in another collection")
    choose(page, "Collection", "reviews", nth=2)
    press(page, "Remove join 2")
    expect(page.get_by_label("Collection", exact=True)).to_have_count(2)
    page.go_back()
    expect(page.get_by_label("Collection", exact=True)).to_have_count(3)


def test_a_joined_document_is_shown_in_columns_of_its_own(page: Page) -> None:
    join = {"from": "users", "as": "user", "shape": "first", "on": [{"local": "userId", "foreign": "_id"}]}
    spec = {"database": "shop", "from": "orders", "match": {"userId": "u1"}, "joins": [join]}
    page.goto(f"/tasks/{submit_join(spec)}")
    page.get_by_role("link", name="Read the result").click()
    expect(page.get_by_role("columnheader", name="user.email")).to_be_visible()
    expect(page.get_by_role("row").filter(has_text="o101")).to_contain_text("alice@example.com")


def test_the_first_load_takes_less_than_150_kib(page: Page) -> None:
    sizes: list[int] = []
    page.on("response", lambda response: sizes.append(len(response.body())))
    page.goto("/?database=flights&source=flights&joins-0-source=planes")
    expect(checks(page)).to_contain_text("find a match")
    assert 0 < sum(sizes) < 150 * 1024


def test_the_form_keeps_its_input_while_mongodb_is_down_and_works_again_afterwards(
    watched: tuple[Page, FaultLog], mongodb_server: Server
) -> None:
    page, faults = watched
    faults.expected_statuses.add(503)
    begin(page, "shop", "users", "orders")
    note, alert = page.get_by_label("Note"), page.locator("#connection")
    with paused(mongodb_server):
        write(note, "typed meanwhile")
        expect(alert).to_contain_text("What you typed is still here")
        expect(note).to_have_value("typed meanwhile")
        expect(page.get_by_label("Field of orders")).to_have_value("userId")
        page.get_by_role("button", name="Run the join").click()
        expect(page.get_by_role("alert").first).to_contain_text("Not submitted. MongoDB does not answer.")
        expect(page.get_by_label("Note")).to_have_value("typed meanwhile")
        assert violations(page) == []
    write(page.get_by_label("Note"), "typed meanwhile and after")
    expect(alert).to_be_hidden()
    choose(page, "Collection", "reviews", nth=1)
    expect(page.get_by_label("Field of reviews")).to_be_visible()
    expect(page.get_by_label("Note")).to_have_value("typed meanwhile and after")
