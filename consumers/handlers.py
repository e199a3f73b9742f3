"""Declaring handlers: `@handler("type", ...)`, and finding them again by type."""

import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from msgspec import Struct, structs
from pydantic import BaseModel, ValidationError

from consumers.outcomes import InvalidPayloadError, Outcome, Retry
from consumers.task import Task
from streams.errors import UserError
from streams.protocol import FailurePolicy, HandlerPolicy, Reason, ReportKind

Placement = Literal["auto", "local", "workers"]
F = TypeVar("F", bound=Callable[..., Any])


class Handler(Struct, frozen=True):
    """One declared handler.  `timeout_s` None: as long as it takes, unless the task itself has a timeout."""

    task_type: str
    fn: Callable[..., Any]
    is_async: bool
    process: bool
    timeout_s: float | None
    policy: HandlerPolicy
    placement: Placement
    payload_model: type[BaseModel] | None
    retry_on: tuple[type[BaseException], ...] = ()  # only these are retried, if there are any
    no_retry_on: tuple[type[BaseException], ...] = ()

    def judge(self, outcome: Outcome, error: BaseException) -> Outcome:
        """The outcome, not to be retried if the handler declares this exception hopeless; `Retry` never is."""
        if outcome.kind is not ReportKind.FAILED or isinstance(error, Retry):
            return outcome
        if isinstance(error, self.no_retry_on) or (self.retry_on and not isinstance(error, self.retry_on)):
            return structs.replace(outcome, retryable=False, reason=Reason.NOT_RETRYABLE)
        return outcome

    def arguments(self, task: Task) -> tuple[Any, ...]:
        """What to call `fn` with.  Raises `InvalidPayloadError`."""
        if self.payload_model is None:
            return (task,)
        try:
            return task, self.payload_model.model_validate_json(task.payload_json)
        except ValidationError as error:
            raise InvalidPayloadError(str(error)) from None


class Registry:
    """Handlers by type.  `source` is where they came from: child processes import the same."""

    def __init__(self) -> None:
        self.source = ""
        self._handlers: dict[str, Handler] = {}

    def __iter__(self) -> Iterator[Handler]:
        return iter(self._handlers.values())

    def get(self, type_name: str) -> Handler | None:
        return self._handlers.get(type_name)

    def types(self) -> tuple[str, ...]:
        return tuple(sorted(self._handlers))

    def handler(
        self,
        type_name: str,
        *,
        timeout_s: float | None = None,
        max_attempts: int | None = None,
        backoff_base_s: float | None = None,
        backoff_factor: float | None = None,
        backoff_cap_s: float | None = None,
        jitter: bool | None = None,
        on_failure: Literal["skip", "block", "cascade"] | None = None,
        retry_on: Iterable[type[BaseException]] = (),
        no_retry_on: Iterable[type[BaseException]] = (),
        process: bool = False,
        placement: Placement = "auto",
    ) -> Callable[[F], F]:
        """Declare the function below as the handler of tasks of this type.

        `async def` runs in an event loop, plain `def` in a thread, either with `process=True` in a child process.
        A second parameter typed with a pydantic model is given the validated payload.  What is None is left to the
        scheduler's settings.  `on_failure`: what becomes of the group when the attempts are spent.  Exceptions in
        `no_retry_on`, and with `retry_on` all others, end a task without another attempt.  Raises `UserError` if the
        declaration makes no sense.
        """
        if not isinstance(type_name, str) or not type_name:
            raise UserError('a handler needs the type of its tasks: @handler("some.type")')
        _check_positive(type_name, timeout_s=timeout_s, max_attempts=max_attempts, backoff_base_s=backoff_base_s,
                        backoff_factor=backoff_factor, backoff_cap_s=backoff_cap_s)  # fmt: skip
        if placement not in ("auto", "local", "workers"):
            raise UserError(f"handler {type_name!r}: placement is 'auto', 'local' or 'workers', not {placement!r}")
        if on_failure not in (None, *FailurePolicy):
            raise UserError(f"handler {type_name!r}: on_failure is 'skip', 'block' or 'cascade', not {on_failure!r}")
        hopeful, hopeless = _exceptions(type_name, retry_on), _exceptions(type_name, no_retry_on)
        then = None if on_failure is None else FailurePolicy(on_failure)
        policy = HandlerPolicy(max_attempts, backoff_base_s, backoff_factor, backoff_cap_s, jitter, then)

        def declare(fn: F) -> F:
            if known := self._handlers.get(type_name):
                raise UserError(
                    f"two handlers for type {type_name!r}, {_where(known.fn)} and {_where(fn)}: give each its own type"
                )
            is_async, model = inspect.iscoroutinefunction(fn), _payload_model(type_name, fn)
            self._handlers[type_name] = Handler(
                type_name, fn, is_async, process, timeout_s, policy, placement, model, hopeful, hopeless
            )  # fmt: skip
            return fn

        return declare


default_registry: Final = Registry()
handler: Final = default_registry.handler


def load_handlers(source: str) -> Registry:
    """Import a module ("shop.handlers") or a file ("handlers.py") and give the handlers that it declares.

    A module may hold a `registry` of its own; else it is the one of `@handler`.  Raises `UserError`.
    """
    try:
        module = _import_file(Path(source)) if source.endswith(".py") else _import_module(source)
    except UserError:
        raise
    except BaseException as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        raise UserError(
            f"cannot import handlers from {source}: {type(error).__name__}: {error} ({frame.filename}:{frame.lineno})"
        ) from error
    registry = getattr(module, "registry", default_registry)
    if not isinstance(registry, Registry):
        registry = default_registry
    if not registry.types():
        raise UserError(f'{source} declares no handler: put @handler("some.type") above a function')
    registry.source = source
    return registry


def _import_module(name: str) -> Any:
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)  # as with `python -m`
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(error.name + ".")):
            raise
        raise UserError(
            f"no module {name!r}: name a module that can be imported from here, or a file such as handlers.py"
        ) from error


def _import_file(path: Path) -> Any:
    if not path.is_file():
        raise UserError(f"no file {path}: name a file with handlers, or a module")
    name = path.stem
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UserError(f"{path} is no Python file")
    if (folder := str(path.resolve().parent)) not in sys.path:
        sys.path.insert(0, folder)  # its neighbours can be imported
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _check_positive(type_name: str, **values: float | None) -> None:
    for name, value in values.items():
        if value is not None and not (isinstance(value, int | float) and value > 0):
            raise UserError(f"handler {type_name!r}: {name} must be above 0, not {value!r}")


def _exceptions(type_name: str, types: Iterable[type[BaseException]]) -> tuple[type[BaseException], ...]:
    found: tuple[type[BaseException], ...] = tuple(types)
    for kind in found:
        if not (isinstance(kind, type) and issubclass(kind, BaseException)):
            raise UserError(f"handler {type_name!r}: retry_on and no_retry_on hold exception types, not {kind!r}")
    return found


def _payload_model(type_name: str, fn: Callable[..., Any]) -> type[BaseModel] | None:
    """The pydantic model of the second parameter, if there is one."""
    where = f"handler {type_name!r} ({_where(fn)})"
    if inspect.isasyncgenfunction(fn) or inspect.isgeneratorfunction(fn):
        raise UserError(f"{where} yields: a handler returns its result")
    positional = _positional(inspect.signature(fn))
    needed = [p for p in positional if p.default is p.empty]
    if not positional or len(needed) > 2:
        raise UserError(f"{where} takes a task, and perhaps a payload: def {fn.__name__}(task) or (task, payload)")
    if len(positional) < 2:
        return None
    try:
        model = _positional(inspect.signature(fn, eval_str=True))[1].annotation
    except NameError as error:
        raise UserError(f"{where}: an annotation cannot be resolved, {error}") from error
    if inspect.isclass(model) and issubclass(model, BaseModel):
        return model
    if positional[1] in needed:
        raise UserError(f"{where}: type its second parameter with a pydantic model, or drop it and use task.payload")
    return None


def _positional(signature: inspect.Signature) -> list[inspect.Parameter]:
    return [p for p in signature.parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]


def _where(fn: Callable[..., Any]) -> str:
    return f"{fn.__module__}.{fn.__qualname__}"
