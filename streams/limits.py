"""Every limit of PSTP in one place, with the relations that must hold between them."""

from typing import Final

KIB: Final = 1024

# What a task may weigh: plain bytes of key, value and headers together.
TASK_BYTES_MAX: Final = 768 * KIB
# Our own records carry a task, its headers in base64, the group state and an envelope.
RECORD_BYTES_MAX: Final = 2 * KIB * KIB
# Room in a record of ours for what is not the task: group state or result, an error's texts, names and numbers.
ENVELOPE_BYTES_MAX: Final = 384 * KIB
# A header's own cost in a record, beside its name and value; nobody needs more headers than these.
HEADER_BYTES: Final = 16
HEADERS_MAX: Final = 10_000
# How much of a stranger's key we repeat where it need not be whole.
SHOWN_BYTES_MAX: Final = 32 * KIB
STATE_BYTES_MAX: Final = 64 * KIB
RESULT_BYTES_MAX: Final = 64 * KIB
ERROR_TEXT_CHARS_MAX: Final = 4_000
TRACEBACK_CHARS_MAX: Final = 16_000
NOTE_CHARS_MAX: Final = 1_000
# Parsers recurse per level; what is deeper is refused the same way in every process.
JSON_DEPTH_MAX: Final = 200

# A partition's counter gives tokens and sequences: the ownership epoch in its high bits.  53 bits survive JavaScript.
EPOCH_SHIFT: Final = 32
COUNTER_MAX: Final = 2**53 - 1

SESSION_TIMEOUT_MS: Final = 6_000
HEARTBEAT_INTERVAL_MS: Final = 1_000
POLL_INTERVAL_MS_MAX: Final = 300_000
TRANSACTION_TIMEOUT_MS: Final = 10_000

# How long a broker outage may last without costing a worker what it runs.  Silence is tolerated a little longer, by
# worker and scheduler alike (`Settings.silence_s`), since an outage makes a worker silent for longer than itself: the
# last report that was acknowledged was sent up to RENEWAL_S before the outage, and the keeper looks each KEEPER_TICK_S;
# afterwards the renewal that waits needs ACKNOWLEDGED_S to get into the log; and the worker gives up LEASE_MARGIN_S
# before its time is over.  So LEASE_S + all of these <= LEASE_S + GRACE_S must hold.
# It is safe because the worker counts from the moment *before* the report was sent, and the scheduler, who waits as
# long, from the moment when it has *read* it, which is later: whoever may still run is not yet given up.
LEASE_S: Final = 10.0
GRACE_S: Final = 1.25
RENEWAL_S: Final = 0.5
KEEPER_TICK_S: Final = 0.1
ACKNOWLEDGED_S: Final = 0.4
# Handlers are cancelled this long before the process would end.
LEASE_MARGIN_S: Final = 0.25
# A dispatch that nobody has claimed for this long is taken back when another worker has a free slot.
UNCLAIMED_S: Final = 1.0

# Events of one group that share a record.
EVENTS_MAX: Final = 100
EVENTS_BYTES_MAX: Final = 64 * KIB
# A run: expected work, what a task costs its worker beside its handler, and what one dispatch may hold.
RUN_MS: Final = 50
RUN_MS_MAX: Final = 10_000
RUN_TASK_MS: Final = 0.2
RUN_TASKS_MAX: Final = 250
RUN_BYTES_MAX: Final = 512 * KIB

ANNOUNCE_INTERVAL_S: Final = 1.0
ANNOUNCE_DEBOUNCE_S: Final = 0.2
MEMBER_SILENT_S: Final = 3.0
ANNOUNCED_TYPES_MAX: Final = 100

# A step takes as long as its batch: some 0.1 s, so that what is ready starts soon however much arrives.
BATCH_RECORDS_MAX: Final = 1_000
FETCH_BYTES: Final = 64 * KIB

MAX_ATTEMPTS: Final = 5
# What a task may ask for; its `type`, `id` and `idempotency_key` are names, not places for data.
MAX_ATTEMPTS_MAX: Final = 1_000
NAME_CHARS_MAX: Final = 200
BACKOFF_BASE_S: Final = 1.0
BACKOFF_FACTOR: Final = 2.0
BACKOFF_CAP_S: Final = 60.0
DELAY_S_MAX: Final = 366 * 24 * 3600.0

# Commands that wait for the fate of one dispatch; a group's tasks that leave with one step; what a partition remembers.
ASKED_MAX: Final = 100
SWEPT_PER_STEP: Final = 1_000
COMMANDS_REMEMBERED: Final = 10_000
DEAD_LETTERS_OPEN_MAX: Final = 20_000
DEAD_LETTERS_OPEN_BYTES_MAX: Final = 256 * KIB * KIB
DEAD_LETTERS_OPEN_H: Final = 90 * 24
IDEMPOTENCY_KEYS_MAX: Final = 100_000
IDEMPOTENCY_WINDOW_S: Final = 24 * 3600.0
CHANGES_SHOWN_MAX: Final = 50
CHANGE_CHARS_MAX: Final = 500

assert TASK_BYTES_MAX * 4 // 3 + STATE_BYTES_MAX + TRACEBACK_CHARS_MAX * 6 < RECORD_BYTES_MAX
assert TASK_BYTES_MAX + ENVELOPE_BYTES_MAX < RECORD_BYTES_MAX
assert STATE_BYTES_MAX + RESULT_BYTES_MAX + (TRACEBACK_CHARS_MAX + ERROR_TEXT_CHARS_MAX) * 6 < ENVELOPE_BYTES_MAX
assert HEADERS_MAX * HEADER_BYTES < ENVELOPE_BYTES_MAX
# A dead letter that somebody has edited: as it was published, as it ran, and two errors of up to 4 bytes a character.
assert TASK_BYTES_MAX * 2 + (TRACEBACK_CHARS_MAX + ERROR_TEXT_CHARS_MAX) * 8 + 32 * KIB < RECORD_BYTES_MAX
assert SHOWN_BYTES_MAX * 7 < ENVELOPE_BYTES_MAX
# A run's payloads, perhaps in base64, the names of its tasks, escaped, and the group state.
assert RUN_BYTES_MAX * 4 // 3 + RUN_TASKS_MAX * NAME_CHARS_MAX * 12 + STATE_BYTES_MAX < RECORD_BYTES_MAX
assert RENEWAL_S + KEEPER_TICK_S + ACKNOWLEDGED_S + LEASE_MARGIN_S <= GRACE_S
assert MEMBER_SILENT_S > 2 * ANNOUNCE_INTERVAL_S
assert HEARTBEAT_INTERVAL_MS * 3 <= SESSION_TIMEOUT_MS < TRANSACTION_TIMEOUT_MS
assert ANNOUNCE_DEBOUNCE_S < ANNOUNCE_INTERVAL_S
