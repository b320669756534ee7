"""The privacy audit of any generator: copies among samples, and what losses give away.

`audit` is the front door; `docs/privacy.md` derives its statistics.
"""

from diffct.privacy.auditing import audit
from diffct.privacy.membership import MembershipLosses
from diffct.privacy.report import PrivacyReport

__all__ = ["MembershipLosses", "PrivacyReport", "audit"]
