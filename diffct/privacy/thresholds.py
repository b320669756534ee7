"""The thresholds of the audit's statistics, in one place, each with its reason.

`docs/privacy.md` derives the tests that they belong to. Those of the search for neighbours stand in
`diffct.privacy.search_settings`.
"""

ALPHA = 0.01
"""Significance level of every finding. An audit asks three questions (copies, over-fitting,
membership) and its findings are accusations, so it is stricter than the usual 0.05: an innocent
model is accused in at most about 3 of 100 audits."""

FALSE_ALARMS = 1e-3
"""Share of real images that would fall below the threshold of a near-copy. Audits have a few
hundred samples: at 1 in 1000 most of them raise no false alarm, and the few near pairs of the
others are explained by chance. Chosen by hand (1 in 500 and 1 in 2000 were tried, too) on phantoms
of one seed."""

MIN_REAL_PATIENTS = 3
"""Real patients without whom there is no threshold: mean and deviation take two degrees of freedom,
and Student's distribution needs one."""

MIN_HELD_OUT_PATIENTS = 19
"""Held-out patients that tell a copy from a relative one by one: a stranger is nearest to one
patient of n + 1 with probability 1 / (n + 1), which 19 bring down to 0.05."""

UNSEEN_PROBABILITY = 0.05
"""Probability of the highest rate of copies that an audit without a finding leaves open: the usual
95 % bound (with 0 of n found, about 3 / n)."""

WEAK_AUC = 0.6
"""AUC of a membership attack that is of little use, if the whole interval lies below: the attacker
is right about a pair of patients in at most 6 of 10 guesses, where tossing a coin is in 5. A
convention."""

MAX_INDEPENDENT_SAMPLES = 4
"""As how many independent samples those of one model may count. They share its bias (brightness,
smoothness), so their mean held-out distance is known no better however many there are. Chosen by
hand: in simulations with shared variances of 0 to 100 % it kept findings without a copy rare."""

PERMUTATIONS = 9999
"""Draws of the permutation test: the smallest probability it can tell is 1 / 10000, a hundredth of
`ALPHA`."""

MIN_LOG_SPREAD = 1e-6
"""Spread of logarithms of distances below which they are equal but for rounding."""

MAX_REAL_IMAGES = 200
"""Real images of each set that tell the threshold. Each costs as much as a sample, and an
estimated deviation of 200 is right within 5 %."""

MAX_REFERENCES = 200
"""Images of each set whose mean is what all have in common; the mean of more looks the same."""
