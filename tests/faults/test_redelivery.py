"""A message that is delivered twice, or a task that is submitted twice, remains one task."""

from concurrent.futures import ThreadPoolExecutor

from celery import states

from tests.faults.conftest import StartWorker, Submit
from tests.faults.support import METADATA, messages, starts, unacknowledged
from tests.support import eventually, wait_for_state
from worker_tasks.infra.connections import connections
from worker_tasks.joins.plan import user_orders
from worker_tasks.queue.celery_app import app
from worker_tasks.records import ledger
from worker_tasks.tasks import join_users_orders

SUBMISSIONS = 8


def test_a_message_redelivered_after_its_task_ended_runs_nothing(
    start_worker: StartWorker, submit_join: Submit, queue: str
) -> None:
    task_id = submit_join("u1")
    (message,) = connections().queue.lrange(queue, 0, -1)
    start_worker()
    before = wait_for_state(task_id, states.SUCCESS)
    connections().results.delete(user_orders.result_key("u1"))
    connections().queue.lpush(queue, message)
    # Messages are consumed in order: once a later task is done, the copy has been handled.
    wait_for_state(submit_join("u2"), states.SUCCESS)
    eventually(lambda: task_id not in messages(queue) + unacknowledged())
    assert ledger.find_task(task_id) == before
    assert not connections().results.exists(user_orders.result_key("u1"))


def test_publishing_again_on_a_new_connection_makes_one_task(submit_practice: Submit, queue: str) -> None:
    submit_practice("makes the connection")
    connections().queue.client_kill_filter(_type="normal", skipme=True)
    task_id = submit_practice("meets a dead connection")
    assert messages(queue).count(task_id) == 1
    assert connections().tasks.count_documents({"_id": task_id}) == 1
    assert ledger.find_task(task_id)["status"] == states.PENDING


def test_racing_submissions_of_one_id_make_one_document(start_worker: StartWorker, queue: str) -> None:
    task_id = f"race-{queue}"

    def submit(number: int) -> None:
        app.send_task(
            join_users_orders.name,
            [f"u{number}"],
            task_id=task_id,
            queue=queue,
            metadata=METADATA | {"submission": number},
        )

    with ThreadPoolExecutor(SUBMISSIONS) as pool:
        list(pool.map(submit, range(1, SUBMISSIONS + 1)))
    waiting = ledger.find_task(task_id)
    assert waiting["args"] == [f"u{waiting['metadata']['submission']}"]
    assert [event["status"] for event in waiting["timeline"]] == [states.PENDING]
    submit(SUBMISSIONS + 1)
    assert ledger.find_task(task_id) == waiting
    assert messages(queue) == [task_id] * (SUBMISSIONS + 1)

    start_worker()
    wait_for_state(task_id, states.SUCCESS)
    eventually(lambda: task_id not in messages(queue) + unacknowledged())
    task = ledger.find_task(task_id)
    assert task["status"] == states.SUCCESS
    assert task["metadata"] == waiting["metadata"]
    # Copies of the message may start until the first start has ended; after that, they are refused.
    assert 1 <= task["attempt"] == len(starts(task)) <= SUBMISSIONS + 1
    assert [event["status"] for event in task["timeline"]].count(states.SUCCESS) == 1
