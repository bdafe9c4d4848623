"""API keys, scopes and the rate limit."""

import errno
import hashlib
import json
import time
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from unittest.mock import Mock

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request

from service.access import Access, KeysFile
from shared.api_keys import Scope, load_keys, new_key, save_keys
from shared.errors import UsageError, UserError


def request(**headers: str) -> Request:
    raw = [(name.replace("_", "-").lower().encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "method": "POST", "path": "/recommend", "headers": raw})


def refusal(access: Access, asked: Request, scope: Scope = Scope.READ) -> HTTPException:
    with pytest.raises(HTTPException) as raised:
        access.admit(asked, scope)
    return raised.value


OTHER = "https://evil.example"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, None),  # a program, which could send anything
        ({"sec_fetch_site": "same-origin", "origin": "https://shop.example", "host": "service:8000"}, None),
        ({"sec_fetch_site": "none"}, None),
        ({"origin": "http://localhost:8000", "host": "localhost:8000"}, None),
        ({"sec_fetch_site": "cross-site", "origin": OTHER, "host": "localhost:8000"}, 403),
        ({"sec_fetch_site": "same-site", "origin": "http://localhost:9000", "host": "localhost:8000"}, 403),
        ({"origin": OTHER, "host": "localhost:8000"}, 403),
        ({"origin": "null", "host": "localhost:8000"}, 403),
    ],
)
def test_without_keys_a_page_of_another_site_changes_nothing(headers: dict[str, str], status: int | None) -> None:
    for scope in (Scope.EVENTS, Scope.ADMIN):
        if status is None:
            Access(None, None).admit(request(**headers), scope)
        else:
            assert refusal(Access(None, None), request(**headers), scope).status_code == status
    for origins in ([OTHER, "null", "http://localhost:9000"], ["*"]):
        Access(None, None, origins).admit(request(**headers), Scope.ADMIN)


def test_a_key_opens_what_its_scopes_name(tmp_path: Path) -> None:
    secret, entry = new_key("web shop", [Scope.READ, Scope.EVENTS])
    path = tmp_path / "keys.json"
    path.write_text(
        json.dumps(
            {"keys": [entry.model_dump(mode="json"), new_key("other", [Scope.ADMIN])[1].model_dump(mode="json")]}
        )
    )
    assert secret not in path.read_text()
    assert entry.sha256 == hashlib.sha256(secret.encode()).hexdigest()
    access = Access(KeysFile(path), None)
    for headers in (
        {"authorization": f"Bearer {secret}"},
        {"authorization": f"bearer {secret}"},
        {"x_api_key": secret},
    ):
        for scope in (Scope.READ, Scope.EVENTS):
            access.admit(request(**headers), scope)
    assert refusal(access, request(x_api_key=secret), Scope.ADMIN).status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x_api_key": ""},
        {"x_api_key": "mts_guess"},
        {"authorization": "Bearer"},
        {"authorization": "Basic bXRz"},
        {"authorization": "Bearer mts_guess"},
        {"authorization": "Bearer ünïcode"},
    ],
)
def test_no_key_or_a_wrong_one_is_refused(headers: dict[str, str]) -> None:
    secret, entry = new_key("web shop", [Scope.READ])
    raw = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
    asked = Request({"type": "http", "method": "POST", "path": "/", "headers": raw})
    refused = refusal(Access(lambda: [entry], None), asked)
    assert refused.status_code == 401
    assert refused.headers == {"WWW-Authenticate": "Bearer"}
    assert secret not in refused.detail


def test_a_key_opens_until_it_expires_and_its_owner_is_told(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    new, new_entry = new_key("new", [Scope.READ], now + timedelta(hours=1))
    old, old_entry = new_key("old", [Scope.READ], datetime(2026, 1, 2, 5, 4, tzinfo=timezone(timedelta(hours=2))))
    path = tmp_path / "keys.json"
    save_keys(path, [new_entry, old_entry])
    access = Access(KeysFile(path), None)
    access.admit(request(x_api_key=new), Scope.READ)
    refused = refusal(access, request(x_api_key=old))
    assert refused.status_code == 401
    assert "expired on 2026-01-02 at 03:04 UTC" in refused.detail
    assert refused.headers is not None
    assert 'error="invalid_token"' in refused.headers["WWW-Authenticate"]
    assert "expired" not in refusal(access, request(x_api_key="mts_guess")).detail


def test_the_digest_itself_is_no_key() -> None:
    _, entry = new_key("web shop", [Scope.READ])
    assert refusal(Access(lambda: [entry], None), request(x_api_key=entry.sha256)).status_code == 401


def test_keys_are_never_the_same() -> None:
    assert len({new_key("name", [Scope.READ])[0] for _ in range(100)}) == 100


def test_without_keys_everybody_may_do_everything() -> None:
    for scope in Scope:
        Access(None, None).admit(request(), scope)


def test_every_key_has_a_limit_of_its_own() -> None:
    (one, first), (two, second) = new_key("one", [Scope.READ]), new_key("two", [Scope.READ])
    access = Access(lambda: [first, second], "3/minute")
    for _ in range(3):
        access.admit(request(x_api_key=one), Scope.READ)
    refused = refusal(access, request(x_api_key=one))
    assert refused.status_code == 429
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    access.admit(request(x_api_key=two), Scope.READ)


@pytest.mark.parametrize("passed", [0.3, 0.7, 8.6])
def test_who_waits_as_long_as_told_is_admitted(monkeypatch: pytest.MonkeyPatch, passed: float) -> None:
    now = 1_000_000.0
    monkeypatch.setattr(time, "time", lambda: now)
    access = Access(None, "1/10 second")
    access.admit(request(), Scope.READ)
    now += passed
    waiting = int(refusal(access, request()).headers["Retry-After"])
    now += waiting - 1
    assert refusal(access, request()).status_code == 429, "told to wait longer than needed"
    now += 1
    access.admit(request(), Scope.READ)


def test_a_request_that_is_taken_over_counts_once() -> None:
    access = Access(None, "2/minute")
    taken_over, other, late = request(), request(), request()
    for _ in range(3):
        access.admit(taken_over, Scope.READ)
    access.admit(other, Scope.READ)
    for _ in range(2):
        assert refusal(access, late).status_code == 429


def test_who_is_refused_spends_nobodys_limit() -> None:
    secret, entry = new_key("one", [Scope.READ])
    access = Access(lambda: [entry], "1/minute")
    for _ in range(5):
        assert refusal(access, request(x_api_key="guess")).status_code == 401
    access.admit(request(x_api_key=secret), Scope.READ)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a keys file"),
        (b"\xff\xfe", "not a keys file"),
        (b"[]", "not a keys file"),
        (b'{"keys": []}', "keys: List should have at least 1"),
        (b'{"keys": [{"name": "a", "scopes": ["read"], "sha256": "short"}]}', r"keys\.0\.sha256"),
        (
            b'{"keys": [{"name": "a", "scopes": ["read"], "sha256": "%s", "expires": "2027-01-31T00:00:00"}]}'
            % (b"0" * 64),
            r"keys\.0\.expires: .*timezone",
        ),
        (b'{"keys": [{"name": "a", "scopes": ["root"], "sha256": "%s"}]}' % (b"0" * 64), r"keys\.0\.scopes\.0"),
        (
            b'{"keys": [%s, %s]}' % ((b'{"name": "a", "scopes": ["read"], "sha256": "%s"}' % (b"0" * 64),) * 2),
            "two keys have the same name",
        ),
    ],
)
def test_a_flawed_keys_file_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "keys.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as raised:
        load_keys(path)
    assert str(path) in str(raised.value)


def test_a_missing_keys_file_and_a_senseless_rate_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        load_keys(tmp_path / "none.json")
    with pytest.raises(UsageError, match="100/second"):
        Access(None, "fast")


def test_a_changed_keys_file_that_cannot_be_read_at_once_is_read_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """So that a key that was revoked does not stay valid; what is wrong is said once."""
    monkeypatch.setattr("service.access.LOOK_SECONDS", 0.0)
    (revoked, old), (_, new) = new_key("old", [Scope.READ]), new_key("new", [Scope.READ])
    path = tmp_path / "keys.json"
    save_keys(path, [old])
    access = Access(KeysFile(path), None)
    save_keys(path, [new])
    with monkeypatch.context() as broken:
        broken.setattr(Path, "read_bytes", Mock(side_effect=OSError(errno.EMFILE, "Too many open files")))
        for _ in range(3):
            access.admit(request(x_api_key=revoked), Scope.READ)
    assert caplog.text.count("Too many open files") == 1
    assert refusal(access, request(x_api_key=revoked)).status_code == 401
