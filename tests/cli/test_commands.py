"""Every command that looks says the same to people and, with --json, to programs."""

import json
from pathlib import Path
from typing import Any

from tests.support.system import System


def ask(system: System, *arguments: str) -> Any:
    done = system.run(*arguments, "--json")
    assert done.returncode == 0, done
    return json.loads(done.stdout)


def test_the_commands_agree_on_one_running_system(system: System, tmp_path: Path) -> None:
    lines = tmp_path / "tasks.jsonl"
    tasks = [{"group": f"a/{n % 2}", "type": "echo", "payload": 1970670598291982290, "id": f"t{n}"} for n in range(10)]
    lines.write_text("\n".join(map(json.dumps, tasks)))
    assert ask(system, "topics", "create") == {"created": []}
    assert ask(system, "topics", "check") == []
    system.scheduler()
    system.worker()
    assert ask(system, "submit", "--file", str(lines))["acknowledged"] == 10
    system.history.wait_terminal(10)
    more = ["--on-failure", "block", "--label", "tenant=x", "--idempotency-key", "once"]
    one = ask(system, "submit", "a/0", "no.such", "[1]", "--id", "waits", *more)
    assert one["task_id"] == "waits"
    ask(system, "submit", "a/0", "echo", "--id", "behind")
    system.publish_raw("a/1", b"{")
    system.flush()
    system.history.wait_terminal(11)
    system.history.wait(lambda h: h.of["behind"])

    (group,) = ask(system, "groups")
    assert (group["group"], group["phase"], group["parked"], group["task_id"]) == ("a/0", "ready", 1, "waits")
    assert [t["task_id"] for t in ask(system, "tasks", "a/0")] == ["waits", "behind"]
    assert ask(system, "explain", "a/0")["blocker"] == "no_handler"
    assert ask(system, "explain", "a/1")["phase"] == "idle"
    (letter,) = ask(system, "dead-letters")
    assert (letter["reason"], letter["group"], letter["value"]) == ("bad_json", "a/1", "{")
    assert ask(system, "verify", "--running")["ok"]
    for command in (["groups"], ["tasks", "a/0"], ["explain", "a/0"], ["dead-letters"], ["verify", "--running"]):
        done = system.run(*command)
        assert done.returncode == 0 and done.stdout.strip() and "Traceback" not in done.stderr


def test_each_command_has_help_with_an_example() -> None:
    from pstp.cli.app import app

    for command in [*app.registered_commands, *app.registered_groups[0].typer_instance.registered_commands]:
        assert command.callback is not None
        text = command.callback.__doc__ or ""
        assert "Example" in text, command.callback.__name__
