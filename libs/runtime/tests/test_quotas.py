"""What one caller may have of a peer, and what the others still get."""

import pytest

from minga_core.errors import BusyError, LimitExceededError
from minga_runtime import quotas
from minga_runtime.quotas import DailyQuota, Quota


def test_no_caller_holds_more_than_its_share() -> None:
    """Half, unless it is the first and asks for one large thing; what it gives back it may have again."""
    quota = Quota("bytes", 100)
    with quota.held("a", 30), quota.held("b", 10):
        with pytest.raises(BusyError, match="30 bytes of yours"), quota.held("a", 21):
            pass
        with quota.held("a", 20), quota.held("c", 40), pytest.raises(BusyError), quota.held("d", 1):
            pass
    assert quota.held_count == 0
    with quota.held("a", 90), quota.held("b", 10):
        assert quota.held_count == 100
    with quota.held("a", 500):
        pass


def test_a_daily_quota_is_of_each_caller_and_begins_anew_each_day() -> None:
    """What was reserved and not used is given back; the message says how much is left for whom."""
    now = 1_000_000.0
    quota = DailyQuota("uploads", 100_000, "MINGA_UPLOAD_QUOTA", lambda: now)
    with quota.charged("peer a", 60_000) as charge:
        with pytest.raises(LimitExceededError, match=r"peer a has 58\.6 KiB of the 97\.7 KiB of uploads") as caught:
            quota.charged("peer a", 60_000).__enter__()
        assert caught.value.limit == 100_000
        with quota.charged("peer b", 100_000):
            pass
        charge.used = 20_000
    with quota.charged("peer a", 80_000) as charge:
        charge.used = 80_000
    with pytest.raises(LimitExceededError), quota.charged("peer a", 1):
        pass
    now += 24 * 60 * 60
    with quota.charged("peer a", 100_000):
        pass


def test_a_reservation_of_yesterday_gives_nothing_back_today() -> None:
    now = 0.0
    quota = DailyQuota("uploads", 100, "MINGA_UPLOAD_QUOTA", lambda: now)
    with quota.charged("a", 100):
        now = 24 * 60 * 60.0
        with quota.charged("a", 100) as today:
            today.used = 100
    with pytest.raises(LimitExceededError), quota.charged("a", 1):
        pass


def test_callers_without_end_share_one_daily_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that has a new address for each upload gets no more, and fills no memory."""
    monkeypatch.setattr(quotas, "MAX_CALLERS", 2)
    quota = DailyQuota("uploads", 100, "MINGA_UPLOAD_QUOTA", lambda: 0.0)
    for caller in ("a", "b", "c"):
        with quota.charged(caller, 60) as charge:
            charge.used = 60
    with pytest.raises(LimitExceededError), quota.charged("d", 60):
        pass
    with quota.charged("a", 40):
        pass
