"""Label quality: consensus of annotators, label errors, and what to label next (numpy only, no torch)."""

from trainer.labels.agreement import Agreement, agreement, cohen_kappa, fleiss_kappa
from trainer.labels.confident import confident_joint, find_label_issues, rank_issues
from trainer.labels.consensus import Consensus, DawidSkene, dawid_skene, majority_vote
from trainer.labels.queries import Queries, k_centre, rank_queries, select_queries
from trainer.labels.reliability import Reliability, reliability

__all__ = [
    "Agreement",
    "Consensus",
    "DawidSkene",
    "Queries",
    "Reliability",
    "agreement",
    "cohen_kappa",
    "confident_joint",
    "dawid_skene",
    "find_label_issues",
    "fleiss_kappa",
    "k_centre",
    "majority_vote",
    "rank_issues",
    "rank_queries",
    "reliability",
    "select_queries",
]
