"""What stands in `tasks`."""

from streams.intake import AcceptedTask, read_task
from streams.settings import Settings
from streams.tail import read_to_end


def stored_tasks(settings: Settings) -> list[AcceptedTask]:
    tasks = []
    for message in read_to_end(settings, settings.topic("tasks"), dict.fromkeys(range(settings.partitions), 0)):
        partition, offset = message.partition() or 0, message.offset() or 0
        read = read_task(message.key(), message.value(), message.headers(), partition=partition, offset=offset)  # type: ignore[arg-type]
        assert isinstance(read, AcceptedTask)
        tasks.append(read)
    return tasks
