"""Classic recommenders, which the whole model is compared with and which its collaborative table is made of."""

from services.training.baselines.fit import (
    BASELINES,
    BaselineSet,
    baseline_steps,
    ease_trials,
    fit_baselines,
)
from services.training.baselines.item_weights import (
    MAX_DENSE_ITEMS,
    ease_weights,
    fill_cold_items,
    item_knn_weights,
    train_matrix,
)
from services.training.baselines.label_means import UserItemMean, user_item_mean
from services.training.baselines.methods import (
    DenseRows,
    FixedScores,
    FloatArray,
    HistorySum,
    Method,
    TextMean,
    history_matrix,
    weighted_sums,
)
from services.training.baselines.tuning import TRIALS, Setting, Tuned, best_of, mean_ndcg, query_ndcg, tune

__all__ = [
    "BASELINES",
    "MAX_DENSE_ITEMS",
    "TRIALS",
    "BaselineSet",
    "DenseRows",
    "FixedScores",
    "FloatArray",
    "HistorySum",
    "Method",
    "Setting",
    "TextMean",
    "Tuned",
    "UserItemMean",
    "baseline_steps",
    "best_of",
    "ease_trials",
    "ease_weights",
    "fill_cold_items",
    "fit_baselines",
    "history_matrix",
    "item_knn_weights",
    "mean_ndcg",
    "query_ndcg",
    "train_matrix",
    "tune",
    "user_item_mean",
    "weighted_sums",
]
