"""What the authority remembers, in one sqlite file: join tokens and their uses, members, grants, and who is revoked.

Each call is one transaction on a connection of its own, so that the server and commands share the file.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from minga_authority.terms import Grant, Terms
from minga_core.errors import NameTakenError, PermissionDeniedError, Refusal, StorageError, UnauthenticatedError

BUSY_SECONDS = 5.0
REVOKED_KEPT_SECONDS = 3600.0
"""A revoked member is on the list for so long after its certificate has ended: clocks differ."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS tokens (
  jti TEXT PRIMARY KEY, role TEXT NOT NULL, name TEXT NOT NULL, uses INTEGER NOT NULL, used INTEGER NOT NULL,
  expires REAL NOT NULL, void INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS members (
  uri TEXT PRIMARY KEY COLLATE NOCASE, name TEXT NOT NULL COLLATE NOCASE, terms TEXT NOT NULL, key TEXT NOT NULL,
  jti TEXT NOT NULL, joined REAL NOT NULL, issued REAL NOT NULL, expires REAL NOT NULL, revoked REAL);
CREATE TABLE IF NOT EXISTS grants (
  jti TEXT PRIMARY KEY, subject TEXT NOT NULL, expires REAL NOT NULL, revoked REAL);
"""


@dataclass(frozen=True, slots=True)
class MemberRow:
    """A member, as `status` shows it. Times are Unix times."""

    uri: str
    terms: Terms
    joined: float
    issued: float
    expires: float
    revoked: float | None


@dataclass(frozen=True, slots=True)
class TokenRow:
    """A join token. uses: how many there are in all, 0 without a limit."""

    jti: str
    role: str
    name: str
    uses: int
    used: int
    expires: float
    void: bool


class Store:
    """The file. Every call raises StorageError when it cannot be read or written."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def add_token(self, jti: str, terms: Terms, expires: float) -> None:
        """Remember a token, whose uses are counted from now on. Idempotent."""
        with self._transaction() as db:
            _add_token(db, jti, terms, expires)

    def join(
        self, jti: str, terms: Terms, token_expires: float, uri: str, key: str, now: float, expires: float
    ) -> None:
        """Make a member, for one use of its token. key: the fingerprint of its key.

        Whoever has the key of a living member joins again as that member, and where it has the same token, without
        another use of it: the answer before was lost. Raises UnauthenticatedError, NameTakenError,
        PermissionDeniedError.
        """
        with self._transaction() as db:
            _add_token(db, jti, terms, token_expires)
            before = db.execute("SELECT key, jti, expires, revoked FROM members WHERE uri = ?", (uri,)).fetchone()
            if before is not None:
                _check_free(uri, before, key, now)
            if before is None or (before["key"], before["jti"]) != (key, jti):
                _use(db, jti)
            db.execute("DELETE FROM members WHERE uri = ?", (uri,))
            db.execute(
                "INSERT INTO members VALUES (?, ?, ?, ?, ?, ?, ?, ?, NULL)",
                (uri, uri.rpartition("/")[2], terms.to_json(), key, jti, now, now, expires),
            )

    def renew(self, uri: str, key: str, now: float, expires: float) -> Terms:
        """What a member with that key may be. Raises UnauthenticatedError, PermissionDeniedError."""
        with self._transaction() as db:
            row = db.execute("SELECT key, terms, revoked FROM members WHERE uri = ?", (uri,)).fetchone()
            if row is None or row["key"] != key:
                raise UnauthenticatedError(
                    f"{uri} did not join with that key",
                    hint="join again, with a new token",
                    refusal=Refusal.NO_CERTIFICATE,
                )
            if row["revoked"] is not None:
                raise PermissionDeniedError(f"{uri} has been revoked", refusal=Refusal.REVOKED)
            db.execute("UPDATE members SET issued = ?, expires = ? WHERE uri = ?", (now, expires, uri))
            return Terms.from_json(row["terms"])

    def add_grant(self, grant: Grant) -> None:
        """Remember a grant for a bearer."""
        with self._transaction() as db:
            db.execute("INSERT INTO grants VALUES (?, ?, ?, NULL)", (grant.jti, grant.subject, grant.expires))

    def revoke(self, who: str, now: float) -> list[str]:
        """Revoke members by name or URI, and grants by subject or id; what was revoked. The tokens by which those
        members joined are void."""
        with self._transaction() as db:
            found = db.execute("SELECT uri, jti FROM members WHERE name = ? OR uri = ?", (who, who)).fetchall()
            for row in found:
                db.execute("UPDATE members SET revoked = ? WHERE uri = ? AND revoked IS NULL", (now, row["uri"]))
                db.execute("UPDATE tokens SET void = 1 WHERE jti = ?", (row["jti"],))
            grants = db.execute("SELECT jti FROM grants WHERE jti = ? OR subject = ?", (who, who)).fetchall()
            for row in grants:
                db.execute("UPDATE grants SET revoked = ? WHERE jti = ?", (now, row["jti"]))
            return [row["uri"] for row in found] + [row["jti"] for row in grants]

    def revoked(self, now: float) -> list[str]:
        """URIs of members and ids of grants that are revoked, and without that would be good."""
        with self._transaction() as db:
            since = now - REVOKED_KEPT_SECONDS
            rows = db.execute(
                "SELECT uri FROM members WHERE revoked IS NOT NULL AND expires > ? "
                "UNION SELECT jti FROM grants WHERE revoked IS NOT NULL AND expires > ? ORDER BY 1",
                (since, since),
            )
            return [row[0] for row in rows]

    def members(self) -> list[MemberRow]:
        """All that ever joined, by URI."""
        with self._transaction() as db:
            return [
                MemberRow(
                    row["uri"],
                    Terms.from_json(row["terms"]),
                    row["joined"],
                    row["issued"],
                    row["expires"],
                    row["revoked"],
                )
                for row in db.execute("SELECT * FROM members ORDER BY uri")
            ]

    def tokens(self, now: float) -> list[TokenRow]:
        """Those that may still be used, the one that expires first before."""
        with self._transaction() as db:
            rows = db.execute(
                "SELECT * FROM tokens WHERE expires > ? AND NOT void AND (uses = 0 OR used < uses) ORDER BY expires",
                (now,),
            )
            return [TokenRow(**{**dict(row), "void": bool(row["void"])}) for row in rows]

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self._path, timeout=BUSY_SECONDS, isolation_level=None)) as db:
                db.row_factory = sqlite3.Row
                self._path.chmod(0o600)
                db.executescript(_SCHEMA)
                db.execute("BEGIN IMMEDIATE")
                yield db
                db.execute("COMMIT")
        except (sqlite3.Error, OSError) as error:
            raise StorageError(f"cannot use {self._path}: {error}") from error


def _add_token(db: sqlite3.Connection, jti: str, terms: Terms, expires: float) -> None:
    db.execute(
        "INSERT OR IGNORE INTO tokens VALUES (?, ?, ?, ?, 0, ?, 0)",
        (jti, terms.role, terms.name, terms.uses, expires),
    )


def _use(db: sqlite3.Connection, jti: str) -> None:
    """Raises UnauthenticatedError."""
    counted = db.execute(
        "UPDATE tokens SET used = used + 1 WHERE jti = ? AND NOT void AND (uses = 0 OR used < uses)", (jti,)
    )
    if counted.rowcount != 1:
        row = db.execute("SELECT void FROM tokens WHERE jti = ?", (jti,)).fetchone()
        raise UnauthenticatedError(
            "the token is void: somebody who joined with it was revoked" if row["void"] else "the token is used up",
            refusal=Refusal.TOKEN_INVALID,
        )


def _check_free(uri: str, before: sqlite3.Row, key: str, now: float) -> None:
    """Check that a name that was somebody's is free for that key. Raises NameTakenError, PermissionDeniedError."""
    if before["revoked"] is not None:
        if before["expires"] + REVOKED_KEPT_SECONDS > now:
            raise PermissionDeniedError(
                f"{uri} has been revoked", hint="join under another name", refusal=Refusal.REVOKED
            )
    elif before["key"] != key and before["expires"] > now:
        raise NameTakenError(
            f"{uri} is a member, with another key",
            hint="join under another name, or revoke that member and wait until its certificate has ended",
        )
