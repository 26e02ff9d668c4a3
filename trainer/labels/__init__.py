"""Label quality: consensus of annotators, label errors, and what to label next (numpy only, no torch)."""

from trainer.labels.confident import confident_joint, find_label_issues
from trainer.labels.consensus import Consensus, DawidSkene, dawid_skene, majority_vote
from trainer.labels.queries import rank_queries

__all__ = [
    "Consensus",
    "DawidSkene",
    "confident_joint",
    "dawid_skene",
    "find_label_issues",
    "majority_vote",
    "rank_queries",
]
