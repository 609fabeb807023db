"""A person expands a list, puts matches into the elements of one, and reads one collection alone."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import violations
from tests.browser.test_builder import begin, checks, choose, settled, write
from worker_tasks.infra.connections import connections

pytestmark = pytest.mark.usefixtures("carts")

INTO_ITEMS = "Put the matches into each element of items"


@pytest.fixture(scope="module")
def carts(servers: None) -> Iterator[None]:
    """Carts with a list of items, and the goods that the items name."""
    database = connections().joins.big
    database.goods.insert_many([{"_id": number, "name": f"good {number}"} for number in range(5)])
    items = [{"goodId": number, "quantity": 2} for number in range(3)]
    database.carts.insert_many([{"_id": number, "by": f"u{number}", "items": items} for number in range(3)])
    yield
    for name in ("goods", "carts"):
        connections().joins.big.drop_collection(name)


def begin_with_goods(page: Page) -> None:
    begin(page, "big", "carts", "goods")
    write(page.get_by_label("Field of carts"), "items.goodId")
    write(page.get_by_label("Field of goods"), "_id")


def test_matches_are_put_into_the_elements_of_a_list(page: Page) -> None:
    begin_with_goods(page)
    page.get_by_label(INTO_ITEMS).check()
    expect(page).to_have_url(re.compile("joins-0-into=items"))
    expect(page.get_by_label("Carts that have goods, with them")).to_have_count(0)
    expect(page.get_by_label("One row for each match")).to_have_count(0)
    expect(checks(page)).to_contain_text("Carts with goods in each of items")
    assert violations(page) == []
    page.reload()
    expect(page.get_by_label(INTO_ITEMS)).to_be_checked()
    page.get_by_label(INTO_ITEMS).uncheck()
    settled(page)
    expect(page).not_to_have_url(re.compile("joins-0-into"))
    expect(page.get_by_label("Carts that have goods, with them")).to_be_visible()


def test_a_list_is_expanded_with_its_positions(page: Page) -> None:
    begin_with_goods(page)
    page.get_by_text("A row for each element of a list").click()
    write(page.get_by_label("List 1"), "items")
    write(page.get_by_label("Field for the position 1"), "line")
    page.get_by_label("Keep rows whose list is empty").check()
    expect(page).to_have_url(re.compile("expand-0-path=items&expand-0-position=line&expand-0-keep_empty="))
    expect(page.get_by_label(INTO_ITEMS)).to_have_count(0)
    expect(checks(page)).to_contain_text("a row for each of items")
    assert violations(page) == []
    page.reload()
    expect(page.get_by_label("Keep rows whose list is empty")).to_be_checked()


def test_capitals_and_blanks_of_keys_are_ignored(page: Page) -> None:
    begin_with_goods(page)
    choose(page, "Compare", "both")
    expect(page).to_have_url(re.compile("joins-0-on-0-fold=both"))
    assert violations(page) == []


def test_lists_and_reading_alone_work_without_javascript(page_without_javascript: Page) -> None:
    page = page_without_javascript
    page.goto(
        "/?database=big&source=carts&joins-0-source=goods&joins-0-on-0-local=items.goodId&joins-0-on-0-foreign=_id"
    )
    page.get_by_label(INTO_ITEMS).check()
    page.get_by_role("button", name="Update the form").click()
    expect(page.get_by_label(INTO_ITEMS)).to_be_checked()
    page.get_by_text("A row for each element of a list").click()
    page.get_by_label("List 1").fill("items")
    page.get_by_role("button", name="Update the form").click()
    expect(page.get_by_label(INTO_ITEMS)).to_have_accessible_description(re.compile("Items is expanded"))
    page.get_by_role("button", name="Read carts alone").click()
    expect(page.get_by_role("button", name="Read the collection")).to_be_visible()
    expect(page).to_have_url(re.compile("alone=y"))
    page.get_by_role("button", name="Bring in a collection").click()
    expect(page.get_by_label("Collection", exact=True)).to_have_count(2)
    expect(page.get_by_label("List 1")).to_have_value("items")
