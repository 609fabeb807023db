"""From a description to the aggregation that answers it."""
