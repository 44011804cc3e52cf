"""The estimators of the Open Bandit Pipeline (package obp) on a log that knows only the item shown.

The only file that imports obp, and with it torch: no online service may import this one.

obp wants the target policy's probability of every item at every place, which a catalogue makes far too large. Its
estimators read the item shown, and of the others only the mean prediction under the target policy. So all others are
one action here, predicted to be worth what makes that mean right, and the result is the same.

Axes: N rows.
"""

import numpy as np
import numpy.typing as npt
from obp.ope import (
    DirectMethod,
    DoublyRobust,
    InverseProbabilityWeighting,
    SelfNormalizedInverseProbabilityWeighting,
    SwitchDoublyRobust,
)

FloatArray = npt.NDArray[np.float64]

_SHOWN = 0


def estimate(
    rewards: FloatArray,
    logged: FloatArray,
    target: FloatArray,
    predicted: FloatArray | None,
    expected: FloatArray | None,
    clip: float,
) -> dict[str, float]:
    """Estimates by name, see services/experiment/off_policy.py, which also checks the arguments; [N] each.

    obp clips no weights, but a weight is clipped where the logged propensity is raised to target / clip.
    """
    distribution = np.stack([target, 1 - target], axis=1)[:, :, np.newaxis]
    log = {"reward": rewards, "action": np.full(len(rewards), _SHOWN), "action_dist": distribution}
    clipped = np.maximum(logged, target / clip)
    values = {
        "ips": InverseProbabilityWeighting().estimate_policy_value(pscore=logged, **log),
        "snips": SelfNormalizedInverseProbabilityWeighting().estimate_policy_value(pscore=logged, **log),
        "ips_clipped": InverseProbabilityWeighting().estimate_policy_value(pscore=clipped, **log),
        "snips_clipped": SelfNormalizedInverseProbabilityWeighting().estimate_policy_value(pscore=clipped, **log),
    }
    if predicted is not None and expected is not None:
        others = np.where(target < 1, (expected - target * predicted) / np.where(target < 1, 1 - target, 1), 0)
        model = np.stack([predicted, others], axis=1)[:, :, np.newaxis]
        modelled = {**log, "estimated_rewards_by_reg_model": model}
        values |= {
            "dm": DirectMethod().estimate_policy_value(action_dist=distribution, estimated_rewards_by_reg_model=model),
            "dr": DoublyRobust().estimate_policy_value(pscore=logged, **modelled),
            "dr_clipped": DoublyRobust().estimate_policy_value(pscore=clipped, **modelled),
            "switch_dr": SwitchDoublyRobust(tau=clip).estimate_policy_value(pscore=logged, **modelled),
        }
    return {name: float(value) for name, value in values.items()}
