"""The commands on an authority's folder: `minga ca …` and `minga token …`. They need no server that runs."""

import argparse
import json
import re
import socket
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from prometheus_client import CollectorRegistry

from minga_authority import kubernetes
from minga_authority.authority import Authority
from minga_authority.folder import AuthorityFolder, Network, init
from minga_authority.settings import DEFAULT_PORT, AuthoritySettings
from minga_authority.terms import Terms
from minga_core.errors import NotFoundError
from minga_runtime.settings import load_settings
from minga_runtime.trust.audit import Audit
from minga_runtime.trust.members import Role
from minga_runtime.trust.rights import EVERYTHING

MAX_DURATION = timedelta(days=3650)
"""The CA's own."""
_DURATION = re.compile(r"(\d{1,9})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_PLACES = ("url", "registry", "locator")
Command = Callable[[AuthoritySettings, argparse.Namespace, Audit], None]


def run_command(arguments: Sequence[str]) -> int:
    """Run one; the exit code. Raises MingaError."""
    options = _parser().parse_args(arguments)
    settings = load_settings(AuthoritySettings, authority_dir=options.dir, state_dir=options.state_dir)
    command: Command = options.command
    audit = Audit(settings.audit, "authority", CollectorRegistry())
    try:
        command(settings, options, audit)
    finally:
        audit.close()
    return 0


def _init(settings: AuthoritySettings, options: argparse.Namespace, audit: Audit) -> None:
    host = socket.getfqdn()
    network = Network(
        options.network, options.url or f"https://{host}:{DEFAULT_PORT}", options.registry, options.locator
    )
    if options.kubernetes:
        _print(kubernetes.secrets_yaml(network, options.namespace, time.time()), end="")
        return
    init(settings.authority_dir, network, time.time())
    _print(f"made {settings.authority_dir} for the network {network.network}: keep it secret, and a copy of it safe")
    _print("next:  minga ca serve   |   minga token create --role peer --publish '*'")


def _create_token(settings: AuthoritySettings, options: argparse.Namespace, audit: Audit) -> None:
    authority = _authority(settings, audit)
    role = Role(options.role)
    known = authority.folder.keys().network
    network = Network(known.network, *(getattr(options, name) or getattr(known, name) for name in _PLACES))
    hosts = options.host or _known_hosts(network, role)
    read = options.read or ([EVERYTHING] if role not in (Role.REGISTRY, Role.LOCATOR) else [])
    terms = Terms(role, options.name, tuple(hosts), tuple(read), tuple(options.publish), options.uses)
    _print(authority.create_token(terms, options.expires, network))
    uses = f"{terms.uses} may join with it" if terms.uses else "any number may join with it"
    rights = f"; reads {', '.join(read)}, publishes {', '.join(terms.publish) or 'nothing'}" if read else ""
    who = f"{role} {terms.name}".strip()
    _say(f"a token for {who}: {uses}, until {_local(time.time() + options.expires.total_seconds())}{rights}")


def _known_hosts(network: Network, role: Role) -> list[str]:
    """The host of the registry or locator that `init` was given."""
    place = {Role.REGISTRY: network.registry, Role.LOCATOR: network.locator}.get(role, "")
    host = place.removeprefix("https://").rpartition(":")[0].strip("[]")
    return [host] if host else []


def _grant(settings: AuthoritySettings, options: argparse.Namespace, audit: Audit) -> None:
    read = options.read or [EVERYTHING]
    _print(_authority(settings, audit).grant(options.subject, read, options.publish, options.expires))
    _say('a bearer\'s grant for locator and gateways: curl -H "Authorization: Bearer $GRANT" …')


def _revoke(settings: AuthoritySettings, options: argparse.Namespace, audit: Audit) -> None:
    found = _authority(settings, audit).revoke(options.who)
    if not found:
        raise NotFoundError(f"no member or grant is called {options.who}", hint="`minga ca status` lists them")
    for each in found:
        _print(f"revoked {each}")
    _say("members refuse it within a minute; the tokens by which they joined are void")


def _status(settings: AuthoritySettings, options: argparse.Namespace, audit: Audit) -> None:
    authority, now = _authority(settings, audit), time.time()
    keys = authority.folder.keys()
    found: dict[str, Any] = {
        "network": keys.network.network,
        "authority": keys.network.url,
        "cas": [
            {"expires": _utc(ca.certificate.not_valid_after_utc.timestamp()), "signs": ca is keys.signing_ca(now)}
            for ca in keys.cas
        ],
        "members": [
            {
                "member": row.uri,
                "read": list(row.terms.read),
                "publish": list(row.terms.publish),
                "joined": _utc(row.joined),
                "issued": _utc(row.issued),
                "expires": _utc(row.expires),
                "state": "revoked" if row.revoked else "expired" if row.expires <= now else "member",
            }
            for row in authority.store.members()
        ],
        "tokens": [
            {
                "id": row.jti,
                "role": row.role,
                "name": row.name,
                "uses_left": row.uses - row.used if row.uses else None,
                "expires": _utc(row.expires),
            }
            for row in authority.store.tokens(now)
        ],
    }
    _print(json.dumps(found, indent=2) if options.json else _status_text(found))


def _status_text(found: dict[str, Any]) -> str:
    lines = [f"network  {found['network']}  at {found['authority']}"]
    lines += [f"CA       until {ca['expires']}{'' if ca['signs'] else '  (does not sign)'}" for ca in found["cas"]]
    for member in found["members"]:
        rights = (
            f"reads {', '.join(member['read']) or 'nothing'}, publishes {', '.join(member['publish']) or 'nothing'}"
        )
        lines.append(f"{member['state']:<8} {member['member']}  until {member['expires']}  {rights}")
    for token in found["tokens"]:
        uses = "any number of uses" if token["uses_left"] is None else f"{token['uses_left']} uses left"
        lines.append(
            f"token    {token['id']}  {token['role']} {token['name'] or '*'}  {uses}, until {token['expires']}"
        )
    return "\n".join(lines)


def _rotate(settings: AuthoritySettings, options: argparse.Namespace, audit: Audit) -> None:
    _authority(settings, audit).folder.add_ca(time.time())
    _say("a new CA: it signs in 10 minutes, and the one before is trusted until nothing that it signed is valid")


def _rotate_grant_key(settings: AuthoritySettings, options: argparse.Namespace, audit: Audit) -> None:
    _authority(settings, audit).folder.add_grant_key(time.time())
    _say("a new key for grants and tokens: it signs in 10 minutes, and the one before is known until its grants end")


def _authority(settings: AuthoritySettings, audit: Audit) -> Authority:
    folder = AuthorityFolder(settings.authority_dir)
    return Authority(folder, life=settings.certificate_life, state=settings.state_dir, audit=audit)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="minga ca", description="The authority of a secure network.", allow_abbrev=False
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    commands.add_parser("serve", help="make members over HTTPS, renew them, say who is revoked")

    made = _command(commands, "init", _init, "make an authority's folder: CA, keys")
    made.add_argument("--network", default="minga", help="the network's name (minga)")
    _places(made)
    made.add_argument("--kubernetes", action="store_true", help="print Secrets for Kubernetes, and make no folder")
    made.add_argument("--namespace", default="minga", help="the namespace of those Secrets (minga)")

    text = "make a token with which others join"
    tokens = commands.add_parser("token", prog="minga token", help=text).add_subparsers(
        required=True, metavar="COMMAND"
    )
    token = _command(tokens, "create", _create_token, text)
    token.add_argument(
        "--role", choices=[role.value for role in Role], default="peer", help="what the bearer becomes (peer)"
    )
    token.add_argument("--name", default="", help="who the bearer becomes; it says so itself unless given")
    token.add_argument("--host", action="append", help="a host name or address of the registry or locator; repeatable")
    _rights(token)
    token.add_argument("--expires", type=_duration, default=timedelta(hours=24), help="as 30m, 24h or 7d (24h)")
    token.add_argument("--uses", type=int, default=1, help="how many may join with it; 0 for any number (1)")

    _places(token)

    grant = _command(commands, "grant", _grant, "make a bearer's grant, for REST without a certificate")
    grant.add_argument("subject", help="who will bear it")
    _rights(grant)
    grant.add_argument("--expires", type=_duration, default=timedelta(hours=1), help="as 30m, 24h or 7d (1h)")

    revoke = _command(commands, "revoke", _revoke, "end a membership, or a bearer's grant, before its time")
    revoke.add_argument("who", help="a member's name or URI; a grant's subject or id")

    status = _command(commands, "status", _status, "who is a member and until when; tokens that are left")
    status.add_argument("--json", action="store_true", help="print JSON of a stable, documented shape")

    _command(commands, "rotate", _rotate, "exchange the CA, while the network works on")
    _command(commands, "rotate-grant-key", _rotate_grant_key, "exchange the key that signs grants and tokens")
    return parser


def _command(commands: Any, name: str, run: Command, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=text[0].upper() + text[1:], allow_abbrev=False
    )
    parser.set_defaults(command=run)
    parser.add_argument("--dir", help="the authority's folder [MINGA_AUTHORITY_DIR]")
    parser.add_argument("--state-dir", help="where its database is, if not there [MINGA_STATE_DIR]")
    return parser


def _places(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--url", default="", help=f"where members find the authority: https://HOST:{DEFAULT_PORT}")
    parser.add_argument("--registry", default="", help="host:port of the registry, which tokens tell members")
    parser.add_argument("--locator", default="", help="URL of the locator, which tokens tell members")


def _rights(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--read", action="append", metavar="PREFIX", help="names to read (*); repeatable")
    parser.add_argument(
        "--publish",
        action="append",
        default=[],
        metavar="PREFIX",
        help="names to publish, * for all (none); repeatable",
    )


def _duration(text: str) -> timedelta:
    match = _DURATION.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError("a number with s, m, h or d behind it is needed, as 24h")
    found = timedelta(**{_UNITS[match[2]]: int(match[1])})
    if found > MAX_DURATION:
        raise argparse.ArgumentTypeError(f"at most {MAX_DURATION.days} days are possible")
    return found


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _local(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).astimezone().strftime("%Y-%m-%d %H:%M")


def _print(text: str, end: str = "\n") -> None:
    sys.stdout.write(text + end)


def _say(text: str) -> None:
    """Beside the result, which may go into a pipe."""
    sys.stderr.write(text + "\n")
