"""The thresholds of the audit's statistics, in one place, each with its reason.

`docs/privacy.md` derives the tests that use them. Those of the search for neighbours are in
`diffct.privacy.search_settings`.
"""

ALPHA = 0.01
"""Significance level of every finding. An audit asks three questions (copies, over-fitting,
membership) and its findings are accusations, so it is stricter than the usual 0.05: an innocent
model is accused in at most about 3 of 100 audits."""

FALSE_ALARMS = 1e-3
"""Share of real images that would fall below the threshold of a near-copy. Audits have a few
hundred samples: at 1 in 1000 most of them raise no false alarm, and chance explains the few near
pairs of the others. Chosen by hand on phantoms of one seed; 1 in 500 and 1 in 2000 were tried,
too."""

MIN_REAL_PATIENTS = 3
"""Smallest number of real patients for a threshold: mean and deviation take two degrees of freedom,
and Student's distribution needs one."""

MIN_HELD_OUT_PATIENTS = 19
"""Smallest number of held-out patients to tell a single copy from a relative: a stranger is the
nearest of n + 1 patients with probability 1 / (n + 1), which is 0.05 for 19."""

UNSEEN_PROBABILITY = 0.05
"""An audit without a finding leaves open the rates of copies at which finding none is at least this
probable: the usual 95 % bound (with 0 of n found, about 3 / n)."""

WEAK_AUC = 0.6
"""AUC below which a membership attack is of little use, if the whole interval lies below: the
attacker is right about a pair of patients in at most 6 of 10 guesses, a coin in 5. A convention."""

MAX_INDEPENDENT_SAMPLES = 4
"""Largest number of independent samples that the samples of one model count as. They share its bias
(brightness, smoothness), so more samples do not make their mean held-out distance more certain.
Chosen by hand: in simulations with shared variances of 0 to 100 % it kept false findings rare."""

PERMUTATIONS = 9999
"""Number of draws of the permutation test: the smallest probability it can give is 1 / 10000, a
hundredth of `ALPHA`."""

MIN_LOG_SPREAD = 1e-6
"""Spread of the logarithms of distances below which they are equal except for rounding."""

MAX_REAL_IMAGES = 200
"""Largest number of real images of each set that determine the threshold. Each costs as much as a
sample, and a deviation estimated from 200 is right within 5 %."""

MAX_REFERENCES = 200
"""Largest number of images of each set whose mean is what all have in common; the mean of more
looks the same."""
