"""Planning: the aggregation that runs a join, its methods and its parts."""
