"""The API over a whole system: what it says is what the log says, and commands are answered from it."""

from typing import Any
from urllib.parse import quote

import pytest

from tests.support.system import until
from tests.web.conftest import Served

KEYS = [
    "a/b",
    "a//b",
    "/",
    "..",
    "a?b=c",
    "a#b",
    "ü/日本",
    "k" * 200,
    "a\x00b",
    "<img src=x>",
    "columns",
    "detail",
    "%2F",
]


def test_a_task_is_submitted_runs_and_shows_its_whole_way(served: Served) -> None:
    sent = served.post("/api/tasks", {"group": "one", "type": "echo", "payload": {"big": 2**70, "text": "ü"}})
    task = until(lambda: _ended(served, sent["taskId"]), what="it ended")
    assert [e["state"] for e in task["events"]] == ["parked", "dispatched", "running", "succeeded"]
    assert task["payload"].replace(" ", "") == '{"big":1180591620717411303424,"text":"ü"}'
    assert served.client.get("/api/tasks/payload", params={"id": sent["taskId"]}).text == task["payload"]
    group = served.get("/api/groups/detail", id="one")
    assert (group["state"], len(group["executions"])) == ("idle", 1)
    assert group["executions"][0]["token"] == task["token"] and int(task["token"]) > 2**32


def _ended(served: Served, task_id: str) -> Any:
    answer = served.client.get("/api/tasks/detail", params={"id": task_id})
    return answer.json() if answer.status_code == 200 and answer.json()["state"] == "succeeded" else None


def test_numbers_of_a_payload_keep_every_digit(served: Served) -> None:
    payload = '{"n":90071992547409931234567890,"f":1.10000000000000000001}'
    body = f'{{"group": "digits", "type": "echo", "payload": {payload}}}'
    answer = served.client.post("/api/tasks", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 201
    text = until(lambda: _ended(served, answer.json()["taskId"]))["payload"]
    assert text == payload


@pytest.mark.parametrize("group", KEYS)
def test_any_key_can_be_listed_opened_paused_and_resumed(served: Served, group: str) -> None:
    task = f"task/{group}"[:180]
    served.system.publish(group, payload=1, id=task)
    served.system.flush()
    served.settled(group, "idle")
    assert served.command(group, "pause_group", note=group)["outcome"] == "done"
    assert served.settled(group, "paused")["explanation"]["paused"]["note"] == group
    found = served.get("/api/groups", q=group, state="paused")["items"]
    assert group in [g["group"] for g in found]
    assert served.get("/api/tasks/detail", id=task)["group"] == group
    assert served.command(group, "resume_group")["outcome"] == "done"
    served.settled(group, "idle")
    if group not in ("..", "columns", "detail"):  # which need the query
        path = f"/api/groups/{quote(group, safe='')}"
        assert served.get(path)["group"] == group
        said = served.post(f"{path}/commands", {"kind": "resume_group"}, wait_s=20)
        assert said["refusal"] == "not_paused"
        assert served.get(f"/api/tasks/{quote(task, safe='')}")["group"] == group


def test_a_command_says_where_it_stands_and_why_it_was_refused(served: Served) -> None:
    said = served.command("nobody", "resume_group")
    assert (said["outcome"], said["refusal"]) == ("refused", "not_paused")
    assert int(said["offset"]) >= 0
    assert served.get(f"/api/commands/{said['commandId']}")["outcome"] == "refused"
    assert served.client.get("/api/commands/unknown-to-all").status_code == 404


def test_counts_and_pages_agree(served: Served) -> None:
    for n in range(25):
        served.system.publish(f"page-{n}")
    served.system.flush()
    until(lambda: served.get("/api/groups", q="page-", limit=1000, state="idle")["items"][24:])
    seen: list[str] = []
    cursor: str | None = None
    while True:
        page = served.get("/api/groups", q="page-", limit=10, **({"cursor": cursor} if cursor else {}))
        seen += [g["group"] for g in page["items"]]
        if (cursor := page["next"]) is None:
            break
    assert sorted(seen) == sorted(f"page-{n}" for n in range(25))
    assert page["counts"] == {"idle": 25}
    columns = served.get("/api/groups/columns")
    counts = served.get("/api/groups")["counts"]
    assert len(columns["ids"]) == served.get("/api/overview")["groups"] == sum(counts.values())
    assert len({len(column) for column in columns.values()}) == 1


def test_what_a_browser_has_already_is_not_sent_again(served: Served) -> None:
    for path in ("/api/groups/columns", "/api/groups", "/api/dead-letters"):
        first = served.client.get(path)
        again = served.client.get(path, headers={"if-none-match": first.headers["etag"]})
        assert again.status_code == 304 and again.content == b""


def test_dead_letters_are_counted_dry_redriven_and_watched(served: Served) -> None:
    for n in range(3):
        served.system.publish(f"dead-{n}", "fail", 9, max_attempts=1)
    served.system.flush()
    letters = until(lambda: (found := served.get("/api/dead-letters", type="fail"))["items"][2:] and found)
    assert letters["reasons"]["attempts_spent"] >= 3
    dry = served.post("/api/redrives", {"filter": {"type": "fail"}, "dry_run": True})
    assert (dry["state"], dry["total"], dry["id"]) == ("dry_run", 3, None)
    job = served.post("/api/redrives", {"filter": {"type": "fail"}, "place": "head"})
    done = until(lambda: (j := served.get(f"/api/redrives/{job['id']}"))["state"] != "running" and j)
    assert (done["state"], done["done"], done["refused"]) == ("done", 3, {})
    assert job["id"] in [j["id"] for j in served.get("/api/jobs")["items"]]
    assert served.client.delete(f"/api/bulk/{job['id']}").status_code == 404


def test_a_bulk_command_counts_first_and_reaches_each_group(served: Served) -> None:
    for n in range(5):
        served.system.publish(f"bulk-{n}")
    served.system.flush()
    for n in range(5):
        served.settled(f"bulk-{n}", "idle")
    asked = {"kind": "pause_group", "filter": {"q": "bulk-"}}
    dry = served.post("/api/bulk", asked | {"dry_run": True})
    assert dry["total"] == 5 and len(dry["first"]) == 3
    job = served.post("/api/bulk", asked)
    until(lambda: served.get(f"/api/bulk/{job['id']}")["state"] == "done")
    for n in range(5):
        served.settled(f"bulk-{n}", "paused")


def test_mistakes_are_problems_with_words_and_a_request_id(served: Served) -> None:
    for method, path, body, status in (
        ("GET", "/api/groups/detail?id=never-seen", None, 404),
        ("GET", "/api/groups?cursor=x", None, 422),
        ("GET", "/api/groups?limit=0", None, 422),
        ("GET", "/api/nothing", None, 404),
        ("POST", "/api/groups/a/commands", {"kind": "explode"}, 422),
        ("POST", "/api/groups/a/commands", {"kind": "edit_head", "payload": "{"}, 422),
        ("POST", "/api/tasks", {"group": "", "type": "x"}, 422),
        ("POST", "/api/tasks", [1], 422),
        ("PUT", "/api/tasks", {}, 405),
    ):
        answer = served.client.request(method, path, json=body)
        assert answer.status_code == status, (path, answer.text)
        assert answer.headers["content-type"] == "application/problem+json" and answer.headers["x-request-id"]
        assert answer.json()["detail"] and answer.json()["status"] == status
