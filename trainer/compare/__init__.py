"""`trainer compare`: a declared set of recipes over the same folds, with honest differences."""
