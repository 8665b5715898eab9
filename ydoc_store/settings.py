"""Every YDOC_* variable, with its unit, its default and the reason for that default.

The only module that reads the environment. A setting's docstring is printed by `ydoc-store settings`, so it says
why the default is what it is, not what the name says already. Nothing here acts on a setting. A flag beats a
variable, a variable (or the file that its `…_FILE` names, for a secret) beats the default; an empty variable
counts as unset, because compose files cannot leave one out. Names under YDOC_TEST_ belong to the tests.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from ydoc_store.errors import SettingInvalid
from ydoc_store.failpoints import checked_failpoints
from ydoc_store.setting_sources import (
    PREFIX,
    Source,
    explain,
    read_secret_files,
    refuse_empty,
    refuse_unknown,
    variable_of,
)
from ydoc_store.units import (
    GIB,
    KIB,
    MIB,
    ByteRate,
    Bytes,
    Count,
    Days,
    Folder,
    InlineBytes,
    Milliseconds,
    Rate,
    Seconds,
    SecondsOrNone,
    Unit,
)


def default_data_dir() -> Path:
    """Where the embedded Postgres keeps its files when nobody says otherwise.

    Root gets a folder outside its home, which is closed to the unprivileged account that Postgres then runs as.
    """
    if os.geteuid() == 0:
        return Path("/var/lib/ydoc-store")
    chosen = os.environ.get("XDG_DATA_HOME", "")
    return (Path(chosen) if chosen.startswith("/") else Path.home() / ".local" / "share") / "ydoc-store"


class Settings(BaseSettings):
    """What one process was told, checked as a whole and unchangeable. Made by `Settings.load`."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        hide_input_in_errors=True,
    )

    # Where it listens, where the data lies
    host: str = "127.0.0.1"
    """Loopback, because the server is open to whoever reaches it until identities are configured."""
    port: Annotated[int, Field(ge=0, le=65535), Unit("port")] = 1234
    """The port that y-websocket's own examples use, for HTTP and WebSocket alike; 0 lets the system choose."""
    database_url: SecretStr | None = None
    """Unset, so that a first run needs nothing installed: a Postgres of our own is started in the data folder."""
    data_dir: Folder = Field(default_factory=default_data_dir)
    """Outside the working directory, so that a second start from elsewhere finds the same documents."""
    read_only: bool = False
    """Off; set it for a standby, a full disk or a migration: editors read and see each other, nothing is stored."""
    no_compactor: bool = False
    """Off, so that one process is a whole service; set it where `ydoc-compactor run` has a host of its own."""
    connections_max: Count = 10_000
    """At 24 KiB an idle connection this is 240 MiB; the process's file limit must allow it too."""
    rooms_max: Count = 11_000
    """Every connection may have a document of its own, and a thousand wait empty for somebody to come back."""
    document_connections_max: Count = 2_000
    """One keystroke is written to each of them: at two thousand it takes some 10 ms of everyone's time."""

    # Who may do what. Unset, the server is open, and listens on loopback only
    jwt_secret: SecretStr | None = None
    """Unset, so that a first run asks nobody. For tokens signed with HS256; `ydoc-store secret new` makes one."""
    jwt_public_key: SecretStr | None = None
    """For tokens that another service signs with RS256, ES256 or EdDSA: its public key as PEM text."""
    jwks_url: str | None = None
    """Likewise, where that service publishes its keys and changes them now and then."""
    jwt_audience: str | None = None
    """Unset, any audience is taken; set it where one issuer serves several services."""
    jwt_issuer: str | None = None
    """Unset, any issuer is taken whose key it is."""
    token_lifetime_max_s: Seconds = 86_400
    """A day's work; a revocation is remembered as long, so a token that lives longer is refused."""
    authorize_url: str | None = None
    """An application that knows who may do what is asked here instead of looking into tokens."""
    authorize_secret: SecretStr | None = None
    """Signs what is asked, so that the application can tell our questions from anybody's."""
    authorize_timeout_s: Seconds = 3
    """An editor waits for the answer; an application that takes longer is in trouble itself."""
    authorize_kept_s: SecondsOrNone = 30
    """A reconnect storm asks once for each person and document; a revocation does not wait for this."""
    authorize: str | None = None
    """`module:function` of the application's own, in this process, instead of a URL."""
    stateless: str | None = None
    """Stateless words of Hocuspocus clients go to this URL, or `module:function`; unset, nowhere."""
    stateless_relay: bool = False
    """Off, because words that everyone hears are a chat that nobody moderates; writers alone are relayed."""
    stateless_bytes_max: Annotated[Bytes, Field(le=64 * KIB)] = 4 * KIB
    """A command or a short note; content belongs into the document."""
    awareness: Literal["read", "write", "off"] = "read"
    """Whoever may read shows where they are; `write` leaves that to writers, `off` to nobody."""
    origins: str = ""
    """Pages of the same host and of loopback may connect; others are named here, separated by commas."""
    trusted_proxies: str = ""
    """Networks, separated by commas, whose X-Forwarded-For is believed; unset, limits per address are off."""

    # How fast one connection and one address may bring things: what is over is read later, never dropped
    connection_messages_per_s: Rate = 2_000
    """A shape that is dragged brings 60 a second, a pasted loop of edits some thousand once."""
    connection_bytes_per_s: ByteRate = 4 * MIB
    """More than most uplinks carry; the largest update fits into what is kept for a burst."""
    address_messages_per_s: Rate = 20_000
    """A third of what a process on one core takes: a flood from one address leaves the rest to the others."""
    address_bytes_per_s: ByteRate = 32 * MIB
    """Likewise, in bytes: eight connections that send all they may."""
    address_connections_per_s: Rate = 100
    """With the burst, an office of 500 comes back at once after a restart; whoever is over tries again."""
    address_failures_per_s: Rate = 5
    """A page with an old token tries once or twice; guessing tokens takes thousands of tries a second."""
    limit_burst_s: Seconds = 5
    """What was not used in so many seconds may come at once: opening, pasting, coming back."""

    # What is told
    log_format: Literal["console", "json"] = "console"
    """A person starts it first; a log collector wants json."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """What an operator acts on; debug adds one line a connection."""
    database_grace_s: Seconds = 30
    """A failover takes 10 to 30 s, and restarting a relay meanwhile only adds a reconnect storm to it."""
    compact_lag_s_max: Seconds = 600
    """Ready turns degraded when due work waits longer: 60 missed sweeps are no jitter."""
    vacuum_held_s_max: Seconds = 3_600
    """A dump takes minutes to an hour; beyond that, what compactions delete piles up on the disk."""
    changes_held_s_max: Seconds = 300
    """A large import commits within it; behind a transaction that stays open longer, the change feed stands still."""
    metrics_refresh_interval_s: Seconds = 15
    """The backlog's gauges cost one query over the heads; scrapers ask every 15 s or less often."""

    # Postgres
    pool_size: Count = 10
    """Loads and reads beside the append lanes; ten processes then stay within Postgres's 100 connections."""
    pool_wait_timeout_s: Seconds = 1
    """Loads queue on their own, so nobody waits here in normal life: who does is sent elsewhere within a second."""
    connect_timeout_s: Seconds = 10
    """A database that starts or fails over answers within it; a wrong address is still told soon."""
    statement_timeout_s: Seconds = 30
    """Stock clients give up on a silent socket after 30 s, so a longer load has nobody waiting for it."""
    lock_timeout_s: Seconds = 2
    """One head held by somebody's open transaction must not stall every document of its lane."""

    # The appender
    append_lanes: Annotated[int, Field(ge=1, le=64), Unit("count")] = 1
    """Commits of all lanes share one WAL flush: a second lane splits the batches before it adds speed."""
    append_timeout_s: Seconds = 5
    """A stalled database must be told to editors within 5 s, not when TCP gives up."""
    append_batch_bytes_max: Bytes = 4 * MIB
    """Bounds for how long an import can hold its lane; typing never reaches it."""
    append_batch_updates_max: Count = 10_000
    """At some 50,000 updates/s this is a fifth of a second: a burst delays its neighbours by no more."""
    append_batch_documents_max: Count = 1_000
    """Each head is a row lock held until the commit; a thousand keep a lane's locks short."""
    append_queue_bytes_max: Bytes = 64 * MIB
    """Past it reading pauses: what waits for a commit is memory, and 64 MiB are seconds of the busiest load."""
    process_incoming_bytes_max: Bytes = 256 * MIB
    """Pausing stops a socket after its message: half and whole messages of all members together stay under this."""
    member_unsettled_bytes_max: Bytes = 4 * MIB
    """Past it this socket is not read: some 8,000 keystrokes in flight, and half of what another's outbox holds."""

    # Limits on one update and one document
    update_bytes_max: Bytes = 16 * MIB
    """A pasted photograph fits; larger things belong into a blob store, with a link in the document."""
    document_bytes_max: Annotated[Bytes, Field(le=900 * MIB)] = 256 * MIB
    """Snapshot and tail together: what a browser can still hold. Postgres itself ends at 1 GiB a value."""
    document_warn_share: Annotated[float, Field(gt=0, le=1), Unit("share")] = 0.8
    """A growing document is noticed while a fifth is left, before its editors are refused."""
    document_pending_units_max: Count = 1_000_000
    """What waits for a predecessor that never came, in characters: editors look through all of it at every arrival."""
    update_structs_max: Count = 100_000
    """New structs in one update: an hour of typing brings some thousand. What is only repeated does not count."""
    update_clients_max: Count = 10_000
    """New client ids in one update: years of daily sessions; each costs every reader an entry for ever."""
    update_delete_ranges_max: Count = 100_000
    """New delete ranges in one update; mere repeats, which every reconnect brings, are bounded by bytes alone."""
    import_deletes_ahead_max: Count = 10_000
    """Units that an import may delete before they came, as an export may: each erases what is written there later."""
    document_ranges_max: Count = 1_000_000
    """A room remembers each run of clocks held or deleted, in some 100 bytes; years of editing bring thousands."""
    process_ranges_max: Count = 5_000_000
    """All rooms' runs together, some 500 MiB; past it empty rooms close, and no more documents open here."""
    nesting_max: Annotated[int, Field(ge=1, le=100), Unit("levels")] = 64
    """Values nested some thousand deep crash native decoders, and 64 is deeper than anyone writes."""

    stream_bytes_max: Bytes = 1 * GIB
    """Nothing ever merges a stream: a writer in a loop ends here and not at the disk's end. The next one takes more."""

    # Awareness
    awareness_bytes_max: Bytes = 16 * KIB
    """A message holds a name, a colour and a cursor for each entry, a few hundred bytes."""
    awareness_entries_max: Count = 100
    """Stock clients send their own entry and repeat what they hear, a handful at a time."""
    awareness_timeout_s: Annotated[Seconds, Field(gt=15)] = 30
    """Stock clients renew every 15 s and forget others after 30 s; so do we."""

    # Hocuspocus: what a socket may bring before its documents are open
    socket_documents_max: Count = 100
    """A workspace opens some tens of documents on one socket; each costs a room's entry before it is used."""
    token_timeout_s: Seconds = 5
    """Stock providers send their token with the first message; whoever has none by then will have none."""
    token_queue_bytes_max: Bytes = 1 * MIB
    """What a provider sends at once behind its token: a sync step 1, presence, and edits of a moment."""
    token_queue_frames_max: Count = 256
    """Likewise, in frames: some seconds of the fastest typist."""

    # Members, rooms and the first sync
    outbox_bytes_max: Bytes = 8 * MIB
    """A live member is at most this far behind; coming back costs it one sync, and no memory here."""
    process_outbox_bytes_max: Bytes = 256 * MIB
    """All outboxes together: past it the slowest members go first, so that many cost no more than some do."""
    slow_member_s: Seconds = 30
    """A socket that took no byte for as long as stock clients wait themselves is gone."""
    sync_piece_bytes_max: Annotated[Bytes, Field(ge=4 * KIB)] = 256 * KIB
    """Clients drop a socket after 30 s without a whole message: this piece crosses 100 kbit/s in 21 s."""
    syncs_at_once_max: Count = 1_000
    """Each holds one piece for its socket, 250 MiB together; who comes later waits, kept alive, for its turn."""
    process_sync_bytes_max: Bytes = 256 * MIB
    """Documents cut into pieces for readers that take them just now, one for all that are new; others wait."""
    reader_bytes_per_s_min: ByteRate = 64 * KIB
    """While others wait for the memory, whoever takes less gives way: any mobile link, and 16 MiB in four minutes."""
    sync_worker_memory_bytes_max: Bytes = 4 * GIB
    """What is too large for the event loop is prepared there; one that runs away ends itself, not the host."""
    loads_at_once_max: Count = 6
    """Of the ten connections of the pool; in a reconnect storm the others wait and share, and do not time out."""
    room_cache_bytes_max: Bytes = 1 * MIB
    """Most documents fit whole, so that a second reader costs no query."""
    process_cache_bytes_max: Bytes = 256 * MIB
    """All rooms' caches together; past it the ones unused longest are dropped."""
    room_idle_s: SecondsOrNone = 5
    """A reload or a lost wireless link finds its room still loaded: stock clients retry within 2.5 s."""
    keepalive_interval_s: Annotated[Seconds, Field(lt=30)] = 15
    """Stock clients drop a socket after 30 s without a data message, and WebSocket pings do not count."""
    handshake_timeout_s: Seconds = 10
    """A browser's upgrade takes well under a second even on a phone; the rest are idle sockets."""
    drain_timeout_s: Seconds = 20
    """Leaves 10 s of the 30 s that orchestrators commonly grant before they kill."""

    # HTTP
    long_poll_timeout_s: Seconds = 30
    """Proxies give up on a silent answer after 60 s, and stock clients ask again at once."""
    sse_close_s: Seconds = 60
    """An event stream ends now and then and its client comes back: proxies' buffers are freed, tokens judged anew."""

    # Other nodes
    poll_interval_s: Seconds = 1
    """A lost hint costs at most this; one query a node covers all its rooms."""
    hint_grace_ms: Milliseconds = 5
    """A gap usually closes by itself when the hint that was overtaken comes; reading the log costs more."""
    notify_inline_bytes_max: InlineBytes = 5_700
    """In base64 7,600 characters: NOTIFY carries 7,999, and the rest holds document, seq and node."""

    # The compactor
    keep_deleted: bool = False
    """Off: deleted text is most of an old document. Set it for new documents where editors run with `gc: false`."""
    compact_tail_rows: Count = 500
    """The most rows that a cold reader reads beside the snapshot; merging 1,000 takes some 12 ms."""
    compact_tail_bytes: Bytes = 64 * KIB
    """Some 3,000 keystrokes, which a cold reader waits 10 ms for; the snapshot's size still bounds the writing."""
    compact_tail_age_s: Seconds = 3_600
    """An abandoned document is tidied within the hour, and an edited one not for every pause."""
    sweep_interval_s: Seconds = 10
    """The busiest document gains a few thousand rows in it; merging 10,000 takes some 94 ms."""
    sweep_jitter_s: SecondsOrNone = 2
    """Compactors started by one deployment would otherwise all look at the same moment."""
    sweep_documents_max: Count = 500
    """A sweep ends, so that the next sees what became more urgent meanwhile."""
    compact_run_rows_max: Count = 100_000
    """Merging 100,000 rows takes about a second; a longer tail is merged in several transactions."""
    compact_run_bytes_max: Bytes = 16 * MIB
    """Typed text takes 60 times its bytes in the worker's memory while it is folded and checked: about 1 GiB."""
    compact_worker_memory_bytes_max: Annotated[Bytes, Field(ge=64 * MIB)] = 2 * GIB
    """Eight times the largest document; a merge that runs away ends its worker, not the host."""
    compact_timeout_s: Seconds = 120
    """A history of 259,778 updates folds in 2 s; a worker that needs two minutes hangs."""
    compact_failures_max: Count = 3
    """A lost connection or a restart explains two failures in a row; the third is the document's."""
    history_days: Days = 7
    """A mistake noticed after a week's holiday can still be replayed; 0 keeps no history."""
    history_bases_min: Count = 1
    """Snapshots that stay whatever the clock says, the current one too; from 2 on quiet documents keep history."""

    deleted_kept_days: Days = 30
    """A mistake is noticed within a month; then a deleted document's content and history go for good."""

    # Tests
    failpoints: Annotated[str, AfterValidator(checked_failpoints)] = ""
    """For tests only: names of steps at which the process stops or dies, separated by commas."""

    _sources: dict[str, Source] = PrivateAttr(default_factory=dict)

    @property
    def sources(self) -> Mapping[str, Source]:
        """Where values came from, by name; those that are not there are defaults."""
        return self._sources

    @property
    def frame_bytes_max(self) -> int:
        """The largest frame that a socket may bring, in bytes: an update, its message header and an address."""
        return self.update_bytes_max + 64

    @property
    def has_identities(self) -> bool:
        """Whether somebody decides who may do what; otherwise everyone may do everything."""
        deciders = (self.jwt_secret, self.jwt_public_key, self.jwks_url, self.authorize_url, self.authorize)
        return any(decider is not None for decider in deciders)

    @property
    def document_warn_bytes(self) -> int:
        """From this size on, in bytes, a document counts as near its limit."""
        return int(self.document_bytes_max * self.document_warn_share)

    @model_validator(mode="after")
    def _hold_together(self) -> Self:
        if self.update_bytes_max > self.document_bytes_max:
            raise ValueError("YDOC_UPDATE_BYTES_MAX is over YDOC_DOCUMENT_BYTES_MAX: no document could hold it")
        if self.outbox_bytes_max < self.sync_piece_bytes_max:
            raise ValueError("YDOC_OUTBOX_BYTES_MAX is under YDOC_SYNC_PIECE_BYTES_MAX")
        deciders = [
            variable_of(name)
            for name in ("jwt_secret", "jwt_public_key", "jwks_url", "authorize_url", "authorize")
            if getattr(self, name) is not None
        ]
        if len(deciders) > 1:
            raise ValueError(f"{' and '.join(deciders)} are set: one alone decides who may do what")
        if self.lock_timeout_s > self.statement_timeout_s:
            raise ValueError("YDOC_LOCK_TIMEOUT_S is over YDOC_STATEMENT_TIMEOUT_S and would never be reached")
        return self

    @classmethod
    def load(cls, overrides: Mapping[str, object] | None = None) -> Settings:
        """The settings of this process, or SettingInvalid with every reason in its text.

        `overrides` are flags by field name; a flag that is None was not given. Unknown YDOC_* variables are
        refused by name, and so is an empty flag. A secret's value appears in no message.
        """
        flags = {name: value for name, value in (overrides or {}).items() if value is not None}
        refuse_empty(flags)
        variables = {name.upper(): value for name, value in os.environ.items() if name.upper().startswith(PREFIX)}
        refuse_unknown(variables, cls.model_fields)
        files = {name: value for name, value in read_secret_files(variables).items() if name not in flags}
        values: dict[str, Any] = {**files, **flags}
        try:
            settings = cls(**values)
        except ValidationError as error:
            raise SettingInvalid(explain(error, flags, cls.model_fields)) from None
        for name in cls.model_fields:
            if name in flags:
                settings._sources[name] = "flag"
            elif name in files:
                settings._sources[name] = "file"
            elif variables.get(variable_of(name)):
                settings._sources[name] = "environment"
        return settings
