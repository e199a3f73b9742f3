"""`@handler` and `load_handlers`: what can be declared, and the sentences for what cannot."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import Raw
from pydantic import BaseModel

from consumers import Registry, Task
from consumers.handlers import default_registry, load_handlers
from consumers.outcomes import InvalidPayloadError
from consumers.processes import check_source
from streams.errors import UserError
from streams.protocol import DispatchedTask, HandlerPolicy


class Order(BaseModel):
    number: int


def task(payload: bytes = b"null") -> Task:
    return Task(DispatchedTask(1, "t1", "a", 7, 1, Raw(payload)), "g", None, lambda fraction, note: None)


@pytest.fixture
def registry() -> Registry:
    return Registry()


def test_a_declaration_is_kept(registry: Registry) -> None:
    @registry.handler("a", timeout_s=30, max_attempts=5, backoff_base_s=0.5, backoff_factor=3, backoff_cap_s=9,
                      process=True, placement="workers")  # fmt: skip
    async def a(task: Task) -> None: ...

    @registry.handler("b")
    def b(task: Task) -> None: ...

    first, second = registry
    assert (first.is_async, first.process, first.timeout_s, first.placement) == (True, True, 30, "workers")
    assert first.policy == HandlerPolicy(5, 0.5, 3, 9)
    assert (second.is_async, second.process, second.timeout_s, second.placement) == (False, False, None, "auto")
    assert second.policy == HandlerPolicy()
    assert first.fn is a
    assert registry.types() == ("a", "b")
    assert registry.get("c") is None


def test_two_handlers_for_one_type_are_named_both(registry: Registry) -> None:
    @registry.handler("a")
    def one(task: Task) -> None: ...

    with pytest.raises(UserError, match=r"two handlers for type 'a'.*one and .*two"):

        @registry.handler("a")
        def two(task: Task) -> None: ...


@pytest.mark.parametrize("options", [
    {"timeout_s": 0}, {"timeout_s": -1}, {"max_attempts": 0}, {"backoff_cap_s": "soon"}, {"placement": "here"},
])  # fmt: skip
def test_options_that_make_no_sense_are_refused(registry: Registry, options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(options))):
        registry.handler("a", **options)


def test_a_handler_without_type_is_refused(registry: Registry) -> None:
    def forgotten(task: Task) -> None: ...

    for wrong in ("", forgotten):
        with pytest.raises(UserError, match="needs the type"):
            registry.handler(wrong)  # type: ignore[arg-type]


def test_a_second_parameter_is_a_pydantic_model(registry: Registry) -> None:
    @registry.handler("a")
    def a(task: Task, payload: Order) -> None: ...

    [declared] = registry
    given = task(b'{"number": 3}')
    assert declared.arguments(given) == (given, Order(number=3))
    with pytest.raises(InvalidPayloadError, match="Field required"):
        declared.arguments(task(b"{}"))


def test_annotations_as_text_are_understood(registry: Registry) -> None:
    def later(task, payload): ...  # type: ignore[no-untyped-def]

    later.__annotations__ = {"task": "NoSuchName", "payload": Order}
    with pytest.raises(UserError, match="NoSuchName"):
        registry.handler("a")(later)
    later.__annotations__ = {"task": "Task", "payload": "Order"}
    registry.handler("a")(later)
    assert next(iter(registry)).payload_model is Order


def test_what_cannot_be_called_with_a_task_is_refused(registry: Registry) -> None:
    def none() -> None: ...

    def three(task: Task, payload: Order, more: int) -> None: ...

    def untyped(task, payload): ...  # type: ignore[no-untyped-def]

    def yields(task: Task) -> Iterator[int]:
        yield 1

    for function, words in ((none, "takes a task"), (three, "takes a task"), (untyped, "pydantic"), (yields, "yields")):
        with pytest.raises(UserError, match=words):
            registry.handler("a")(function)


def test_defaults_need_no_model(registry: Registry) -> None:
    @registry.handler("a")
    def a(task: Task, factor: int = 2) -> None: ...

    given = task()
    assert next(iter(registry)).arguments(given) == (given,)


class TestLoading:
    @pytest.fixture(autouse=True)
    def as_it_was(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        modules, handlers = set(sys.modules), dict(default_registry._handlers)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
        yield
        for name in set(sys.modules) - modules:
            del sys.modules[name]
        default_registry._handlers.clear()
        default_registry._handlers.update(handlers)

    def write(self, name: str, text: str) -> None:
        Path(name).write_text(text)

    HANDLER = 'from consumers import handler\n@handler("%s")\ndef f(task): ...\n'

    def test_a_file_and_its_neighbours(self) -> None:
        self.write("my_neighbour.py", "x = 1\n")
        self.write("my_file.py", "from my_neighbour import x\n" + self.HANDLER % "from file")
        registry = load_handlers("my_file.py")
        assert "from file" in registry.types()
        assert registry.source == "my_file.py"

    def test_a_module_from_the_folder_one_is_in(self) -> None:
        self.write("my_module.py", self.HANDLER % "from module")
        assert "from module" in load_handlers("my_module").types()

    def test_a_registry_of_its_own_is_preferred(self) -> None:
        own = "from consumers import Registry\nregistry = Registry()\n@registry.handler('own')\ndef f(task): ...\n"
        self.write("my_own.py", own)
        assert load_handlers("my_own").types() == ("own",)

    @pytest.mark.parametrize(("source", "words"), [
        ("no_such_file.py", "no file no_such_file.py"),
        ("no_such_module", "no module 'no_such_module'"),
        ("no_such.module", "no module 'no_such.module'"),
        ("needs_more.py", "ModuleNotFoundError: No module named 'no_such_library'"),
        ("typo.py", r"SyntaxError: .*\(typo.py, line 1\)"),
        ("leaves.py", r"SystemExit: 3 \(.*leaves.py:2\)"),
        ("empty.py", "declares no handler"),
    ])  # fmt: skip
    def test_mistakes_get_one_sentence(self, monkeypatch: pytest.MonkeyPatch, source: str, words: str) -> None:
        self.write("needs_more.py", "import no_such_library\n")
        self.write("typo.py", "def f(:\n")
        self.write("leaves.py", "import sys\nsys.exit(3)\n")
        self.write("empty.py", "from consumers import Registry\nregistry = Registry()\n")
        with pytest.raises(UserError, match=words) as caught:
            load_handlers(source)
        assert "\n" not in str(caught.value)


def test_a_process_handler_must_be_importable(registry: Registry) -> None:
    def local(task: Task) -> None: ...

    local.__module__ = "__main__"
    registry.handler("a", process=True)(local)
    [declared] = registry
    with pytest.raises(UserError, match="module that a child process can import"):
        check_source(registry, declared)
    registry.source = "file.py"
    assert check_source(registry, declared) == "file.py"
